/** Starts one guest from a checkpoint: the file is read and distrusted, the memory filled, the record won, and only then the guest runs. */
import { closeSync, constants, fstatSync, openSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { answering, askRecord, natsOptionsOf, type OwnershipRegister, randomId, type Settings } from "@godwit/actor";
import {
  builtinState,
  type Checkpoint,
  checksumsOf,
  downloadCheckpoint,
  type FilePlace,
  fingerprintOf,
  type HostPlace,
  MalformedCheckpoint,
  ownBlocks,
  type PagesLeftOut,
  qemuDeviceState,
  readCheckpoint,
  takesDirectIo,
} from "@godwit/checkpoint";
import { Fabric, FabricError, openObjectStore } from "@godwit/fabric";
import { type Guest, openDestination } from "@godwit/guest";
import { PAGE_BYTES, type RamBlock } from "@godwit/memory";
import {
  type CheckpointInfo,
  type Difference,
  type Epoch,
  GodwitError,
  type Incarnation,
  json,
  type MigrationId,
  NodeInfo,
  type OwnershipEntry,
  type OwnershipRecord,
  type Parameters,
  type RestoreRequest,
  type SettlementEvent,
  settle,
  subjects,
  toError,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Schedule from "effect/Schedule";
import * as Schema from "effect/Schema";
import type * as Scope from "effect/Scope";
import { mayRestore } from "./decisions/index.ts";
import { fillMemory } from "./filling.ts";
import { lazyRestore } from "./lazy-restore.ts";
import { forgetPaging } from "./paging-file.ts";
import type { HostTools } from "./session.ts";

/** What a restore shows while it goes on; bytes. */
export interface Progress {
  total: number;
  remaining: number;
  transferred: number;
  checksums: NonNullable<CheckpointInfo["checksums"]>;
  readonly startedAt: number;
  /** Of a lazy restore: there is no way back any more, and who has asked for it can cancel it no longer. */
  isBound: boolean;
  details: Pick<CheckpointInfo, "first-instruction" | "postcopy-requests" | "postcopy-latency" | "error">;
}

/** The coordinator asks all nodes, which ask their guests, ms. */
const NODES_TIMEOUT_MS = 8000;
/** Between two tries of a write whose outcome is unknown, ms. */
const SETTLE_PAUSE_MS = 50;
/** A guest that does not start is asked again, ms: once the record is won there is no way but forward. */
const START_AGAIN_MS = 500;

const nodeList = json(Schema.Array(NodeInfo));

const refuse = (code: GodwitError["code"], step: string, reason: string): GodwitError =>
  new GodwitError({ code, actor: "loader", side: "destination", step, reason });

/**
 * Returns once the guest runs (or stands, with `stop`). Failed or interrupted before the record was won, it leaves nothing behind but a QEMU
 * that somebody else had started and that was given no device state, which waits on.
 */
export const restoreGuest = Effect.fnUntraced(function* (
  asked: RestoreRequest,
  wanted: HostPlace,
  parameters: Parameters,
  tools: HostTools,
  progress: Progress,
  tell: (status: "setup" | "active" | "device" | "postcopy-active") => void,
): Effect.fn.Return<void, GodwitError, Fabric | Scope.Scope> {
  const { settings, registry, register } = tools;
  if (asked.lazy && wanted.object !== null) return yield* noLazyObject;
  const place = yield* fetched(wanted, settings);
  const { fd, checkpoint } = yield* openCheckpoint(place);
  if (parameters["direct-io"] === "on" && !(yield* reading(() => takesDirectIo(place.path))))
    return yield* refuse(
      "not-supported",
      "read the checkpoint",
      `the file system of ${place.path} takes no direct I/O; leave direct-io off`,
    );
  const entry = yield* lookAround(asked, settings, register);
  const epoch = (entry?.record.epoch ?? 0) + 1;
  const state = yield* reading(() => builtinState(checkpoint.tail, checkpoint.devicesOffset));
  const sums = yield* reading(() => checksumsOf(place.path, fingerprintOf(checkpoint)));
  progress.checksums = sums.of === "none" ? "none" : sums.of === "this save" ? "not checked" : "of another save";
  progress.total = checkpoint.blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);

  const offer = {
    name: asked.guest,
    driver: state === null ? ("qemu" as const) : ("builtin" as const),
    blocks: checkpoint.blocks.map(blockOf),
    epoch,
    devices: [],
  };
  const { spec, guest, undo } = yield* openDestination(registry, offer, settings.guestDirectory);
  const giveUp = Effect.ignore(guest.discard).pipe(
    Effect.andThen(undo),
    Effect.andThen(Effect.sync(() => forgetPaging(settings.runtimeDirectory, asked))),
  );
  const bringing = yield* Effect.gen(function* () {
    const blocks = yield* agree(guest, checkpoint);
    const shared = new Set(blocks.map(({ name }) => name));
    progress.remaining = checkpoint.blocks.reduce(
      (sum, { name, presentPages }) => sum + (shared.has(name) ? presentPages * PAGE_BYTES : 0),
      0,
    );
    // Said before hours of reading, not after them.
    yield* reading(() => ownBlocks(checkpoint, shared));
    tell("active");
    if (asked.lazy) {
      const begun = { asked, place, parameters, settings, spec, guest, blocks, progress, fd, checkpoint };
      // Devices of a QEMU touch memory while they load.
      const pages = yield* Effect.forkScoped(yield* lazyRestore(begun));
      tell("device");
      const load = Effect.flatMap(deviceStateOf(fd, checkpoint, state, shared, "x-ignore-shared"), (bytes) =>
        loadState(guest, bytes, asked.id, settings),
      );
      yield* Effect.raceFirst(load, Effect.andThen(Fiber.join(pages), Effect.never));
      yield* sameFile(fd, place.path);
      return pages;
    }
    yield* fillMemory({
      id: asked.id,
      settings,
      checkpointPath: place.path,
      parameters,
      blocks,
      stored: checkpoint.blocks,
      sums: sums.blocks,
      progress,
    });
    if (sums.blocks !== null) progress.checksums = "verified";
    tell("device");
    const bytes = yield* deviceStateOf(fd, checkpoint, state, shared, "not sent");
    yield* loadState(guest, bytes, asked.id, settings);
    yield* sameFile(fd, place.path);
    return null;
  }).pipe(Effect.onError(() => giveUp));

  /** Its pages cannot be had, and it has ended. */
  const isLost = (): boolean => {
    const exit = bringing?.pollUnsafe();
    return exit !== undefined && Exit.isFailure(exit);
  };
  // From the commit on there is no way back, and nobody may stop in between.
  yield* Effect.uninterruptible(
    Effect.gen(function* () {
      progress.isBound = asked.lazy;
      const revision = yield* commit(asked, epoch, entry, tools).pipe(Effect.onError(() => giveUp));
      if (!asked.stop)
        yield* guest.resume.pipe(
          Effect.tapError((error) =>
            Effect.logError(`guest ${asked.guest} was restored and does not start: ${error.message}`),
          ),
          Effect.retry({ schedule: Schedule.spaced(START_AGAIN_MS), times: 120, while: () => !isLost() }),
          Effect.catch((error) => (bringing !== null && isLost() ? Fiber.join(bringing) : Effect.fail(error))),
          Effect.tap(() =>
            Effect.sync(() => {
              progress.details = { ...progress.details, "first-instruction": Date.now() - progress.startedAt };
            }),
          ),
        );
      yield* answering("loader", "note that the guest is here")(Effect.sync(() => registry.settle(asked.guest)));
      // Not written: the next life finds it open, and the guest running.
      yield* register.write(asked.guest, recordOf(asked, epoch, settings, false), revision);
    }),
  );
  if (bringing === null) return;
  tell("postcopy-active");
  yield* Fiber.join(bringing);
  if (sums.blocks !== null) progress.checksums = "verified";
});

const noLazyObject = Effect.suspend(() =>
  Effect.fail(
    refuse(
      "not-supported",
      "begin a lazy restore",
      "a checkpoint of an object store lies on this host only as long as its restore takes, and the guest would wait for its pages for good if this loader died: restore without --lazy",
    ),
  ),
);

const blockOf = ({ name, lengthBytes }: { readonly name: string; readonly lengthBytes: number }): RamBlock => ({
  name,
  lengthBytes,
  hostPageBytes: PAGE_BYTES,
  path: "",
  fileOffset: 0,
});

/** What is read of a file that anybody may have written. */
const reading = <A>(read: () => A): Effect.Effect<A, GodwitError> => Effect.try({ try: read, catch: notReadable });

const notReadable = (cause: unknown): GodwitError =>
  refuse(
    cause instanceof MalformedCheckpoint ? "bad-checkpoint" : "checkpoint-failed",
    "read the checkpoint",
    cause instanceof Error ? cause.message : String(cause),
  );

/** The checkpoint as a file of this host; one that was brought here for this restore goes with the scope. */
const fetched = (
  { object, ...place }: HostPlace,
  settings: Settings,
): Effect.Effect<FilePlace, GodwitError, Scope.Scope> =>
  object === null
    ? Effect.succeed(place)
    : Effect.gen(function* () {
        const options = natsOptionsOf(settings, "loader", `godwit loader ${settings.node} checkpoint`);
        const store = yield* openObjectStore(options, object.bucket);
        const manifest = yield* downloadCheckpoint(store, object.name, place.path, () => {});
        if (manifest !== null) return { ...place, start: manifest.start };
        const reason = `object store ${object.bucket} has no checkpoint ${object.name}`;
        return yield* refuse("no-such-checkpoint", "fetch the checkpoint", reason);
      }).pipe(
        Effect.mapError((error) => {
          if (error instanceof GodwitError) return error;
          if (error instanceof MalformedCheckpoint)
            return refuse("bad-checkpoint", "fetch the checkpoint", error.message);
          if (!(error instanceof FabricError))
            return refuse("checkpoint-failed", "fetch the checkpoint", error.message);
          const code = error.code === "failed" || error.code === "closed" ? "nats-unreachable" : error.code;
          return refuse(code, error.operation, error.reason);
        }),
      );

const openCheckpoint = ({
  path,
  start,
}: FilePlace): Effect.Effect<{ readonly fd: number; readonly checkpoint: Checkpoint }, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    const fd = yield* Effect.acquireRelease(
      // A pipe of that name must not hold this process up, a link not lead it elsewhere.
      reading(() => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW)),
      (open) => Effect.sync(() => closeSync(open)),
    );
    return { fd, checkpoint: yield* reading(() => readCheckpoint(fd, start)) };
  });

/** Workers open the file by its path: a save that replaced it meanwhile would have mixed two guests. */
const sameFile = (fd: number, path: string): Effect.Effect<void, GodwitError> =>
  Effect.flatMap(
    reading(() => fstatSync(fd).ino === statSync(path).ino),
    (isSame) =>
      isSame
        ? Effect.void
        : Effect.fail(
            refuse("checkpoint-failed", "read the checkpoint", `${path} was replaced while it was read; restore again`),
          ),
  );

/** Where the guest may be, and what the record says. */
const lookAround = Effect.fnUntraced(function* (
  asked: RestoreRequest,
  settings: Settings,
  register: OwnershipRegister,
) {
  const fabric = yield* Fabric;
  const entry = yield* register.read(asked.guest);
  if (entry === "Unknown")
    return yield* refuse(
      "ownership-unknown",
      "claim the guest",
      `the ownership record of guest ${asked.guest} cannot be read`,
    );
  const nodes = yield* fabric
    .request(subjects.coordinator("nodes"), new TextEncoder().encode("{}"), { timeoutMs: NODES_TIMEOUT_MS })
    .pipe(
      Effect.mapError((error) => refuse("nats-unreachable", "ask the nodes for their guests", error.message)),
      Effect.flatMap((reply) => nodeList.decodeEffect(reply, "loader")),
    );
  const refusal = mayRestore({ guest: asked.guest, node: settings.node, entry, nodes, takeOver: asked.takeOver });
  if (refusal !== null) return yield* toError(refusal);
  return entry;
});

/** The guest's own blocks, each as long as the checkpoint's of that name, in a machine of the same type. */
const agree = Effect.fnUntraced(function* (guest: Guest, checkpoint: Checkpoint) {
  const { blocks, machine } = yield* guest.describe;
  const differences: Difference[] = [];
  if (machine !== checkpoint.machine)
    differences.push({ what: "machine type", mine: machine, yours: checkpoint.machine });
  for (const block of blocks) {
    const stored = checkpoint.blocks.find(({ name }) => name === block.name);
    if (stored?.lengthBytes === block.lengthBytes) continue;
    const yours = stored === undefined ? "none of that name" : `${stored.lengthBytes} bytes`;
    differences.push({ what: `RAMBlock ${block.name}`, mine: `${block.lengthBytes} bytes`, yours });
  }
  if (differences.length === 0) return blocks;
  return yield* new GodwitError({
    code: "incompatible",
    actor: "loader",
    side: "destination",
    step: "compare the guest with the checkpoint",
    reason: "the guest that waits is not like the one that was saved",
    differences,
  });
});

/** What the guest's driver loads while its memory comes by another way: of a QEMU also the RAM that is none of the guest's own. */
const deviceStateOf = (
  fd: number,
  checkpoint: Checkpoint,
  builtin: Uint8Array | null,
  shared: ReadonlySet<string>,
  leftOut: PagesLeftOut,
): Effect.Effect<Uint8Array, GodwitError> =>
  builtin !== null
    ? Effect.succeed(builtin)
    : Effect.tryPromise({
        try: () => qemuDeviceState(fd, checkpoint, shared, leftOut),
        catch: notReadable,
      });

const loadState = (
  guest: Guest,
  state: Uint8Array,
  id: string,
  settings: Settings,
): Effect.Effect<void, GodwitError> => {
  const path = join(settings.runtimeDirectory, `restore-${id}`);
  return Effect.acquireUseRelease(
    reading(() => writeFileSync(path, state, { mode: 0o600, flag: "wx" })),
    () => guest.loadDeviceState(path),
    () => Effect.sync(() => rmSync(path, { force: true })),
  );
};

const recordOf = (asked: RestoreRequest, epoch: number, settings: Settings, open: boolean): OwnershipRecord => ({
  state: "destination",
  epoch: epoch as Epoch,
  op: `${settings.incarnation}-restore-${randomId()}`,
  migration: asked.id as MigrationId,
  node: settings.node,
  open,
  wasRunning: !asked.stop,
  incarnation: settings.incarnation as Incarnation,
});

/** Wins the record, or fails because somebody else has; repeated until that is known (O5). Returns the revision. */
const commit = Effect.fnUntraced(function* (
  asked: RestoreRequest,
  epoch: number,
  entry: OwnershipEntry | null,
  { settings, register }: HostTools,
) {
  const settlement = { record: recordOf(asked, epoch, settings, true), revision: entry?.revision ?? 0 };
  let next: "write" | "read" = "write";
  for (let afterMs = 0; ; ) {
    const answer = yield* askRecord(
      register,
      asked.guest,
      next === "write"
        ? { _tag: "WriteRecord", record: settlement.record, revision: settlement.revision, afterMs }
        : { _tag: "ReadRecord", op: settlement.record.op, afterMs },
    );
    const event: SettlementEvent =
      answer._tag === "RecordWritten" ? { ...answer, _tag: "Written" } : { ...answer, _tag: "Read" };
    const outcome = settle(settlement, event);
    if (outcome._tag === "Won") return outcome.revision;
    if (outcome._tag === "Lost")
      return yield* refuse(
        "fenced",
        "claim the guest",
        `another attempt has guest ${asked.guest} at node ${outcome.to.record.node}`,
      );
    next = outcome._tag === "Write" ? "write" : "read";
    afterMs = outcome.after === "at once" ? 0 : SETTLE_PAUSE_MS;
  }
});
