/** What a save does to its guest and its file, step by step; each answers with the event that its decisions wait for. */
import { readFileSync, rmSync } from "node:fs";
import { answering, asGodwitError, natsOptionsOf, type Settings } from "@godwit/actor";
import {
  builtinTail,
  type CheckpointWriter,
  type Content,
  type Gate,
  type HostPlace,
  MalformedCheckpoint,
  openGate,
  openWriter,
  RAM_SECTION_ID,
  takeApart,
  takesDirectIo,
  uploadCheckpoint,
} from "@godwit/checkpoint";
import { FabricError, openObjectStore } from "@godwit/fabric";
import { type Guest, type GuestDescription, openRegistered, type Registry, watchGuest } from "@godwit/guest";
import {
  type DirtyTracker,
  deviceStateExport,
  exportBlocks,
  exportCheckpoint,
  gateExport,
  PAGE_BYTES,
  type RamBlock,
  withdrawExports,
} from "@godwit/memory";
import { fromError, GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Schedule from "effect/Schedule";
import * as Scope from "effect/Scope";
import * as Semaphore from "effect/Semaphore";
import type { Save, SaveEvent, SaveStep } from "./decisions/index.ts";
import { batchRuns } from "./run-batches.ts";

/** Between two tries to shut a gate, ms: a worker is within for as long as 1 MiB takes. */
const SHUT_AGAIN_MS = 2;
/** How long a worker may stay within, ms: one that sleeps that long holds the save up, and perhaps the guest. */
const SHUT_MS = 15_000;
/** Exports of a save have one epoch: a save is never tried again under its id. */
const EPOCH = 1;

export interface SaveSteps {
  readonly take: (step: SaveStep, round: number) => Effect.Effect<SaveEvent, GodwitError>;
  readonly closeTracker: Effect.Effect<void>;
  /** Gate, file and tracker go, whoever is at them. */
  readonly abandon: Effect.Effect<void>;
  /** By block: where it begins in its RAM file, and where its pages begin in the checkpoint. */
  readonly places: () => ReadonlyArray<{ readonly fileOffset: number; readonly pagesOffset: number }>;
}

const failed = (step: string, reason: string): GodwitError =>
  new GodwitError({ code: "checkpoint-failed", actor: "ram-sender", side: "source", step, reason });

/** What the file system says, with its word for "full" as a code of its own. */
const fileFailure =
  (step: string) =>
  (cause: unknown): GodwitError => {
    if (cause instanceof GodwitError) return cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    const isFull = (cause as NodeJS.ErrnoException)?.code === "ENOSPC";
    return isFull
      ? new GodwitError({ code: "no-space", actor: "ram-sender", side: "source", step, reason })
      : failed(step, reason);
  };

/** `dispatch` gets the dirty runs while a sync goes on. The scope's end takes away what is not finished. */
export const makeSaveSteps = Effect.fnUntraced(function* (
  save: Save,
  place: HostPlace,
  tools: { readonly settings: Settings; readonly registry: Registry },
  dispatch: (event: SaveEvent) => void,
): Effect.fn.Return<SaveSteps, never, Scope.Scope> {
  const { settings, registry } = tools;
  const { runtimeDirectory } = settings;
  const scope = yield* Effect.scope;
  const statePath = deviceStateExport(runtimeDirectory, save.id, EPOCH);
  let guest: Guest | null = null;
  let description: GuestDescription | null = null;
  let writer: CheckpointWriter | null = null;
  let gate: Gate | null = null;
  let tracker: DirtyTracker | null = null;
  let trackerScope: Scope.Closeable | null = null;
  let readFrom: ReadonlyArray<RamBlock> = [];

  const closeTracker = Effect.suspend(() => {
    const opened = trackerScope;
    tracker = null;
    trackerScope = null;
    return opened === null ? Effect.void : Scope.close(opened, Exit.void);
  });
  const abandon = Effect.suspend(() => {
    gate?.abandon();
    writer?.close();
    withdrawExports(runtimeDirectory, save.id);
    if (place.object !== null) rmSync(place.path, { force: true });
    return closeTracker;
  });
  yield* Effect.addFinalizer(() => abandon);

  const describe = Effect.gen(function* () {
    const opened = yield* openRegistered(registry, save.guest);
    if ((opened.spec.devices ?? []).length > 0)
      return yield* new GodwitError({
        code: "not-supported",
        actor: "ram-sender",
        side: "source",
        step: "describe the guest",
        reason: `guest ${save.guest} has VFIO devices, whose state a checkpoint cannot hold`,
      });
    guest = opened.guest;
    const watch = yield* watchGuest(opened.guest, { guest: save.guest, actor: "ram-sender", side: "source" });
    yield* Effect.forkScoped(
      Effect.map(watch.ended, (error) => dispatch({ _tag: "GuestEnded", failure: fromError(error) })),
    );
    const found = yield* opened.guest.describe;
    description = found;
    if (found.runState !== "running" && found.runState !== "paused")
      return yield* new GodwitError({
        code: "guest-not-movable",
        actor: "ram-sender",
        side: "source",
        step: "describe the guest",
        reason: `guest ${found.name} is ${found.runState}; only a running or a paused guest can be saved`,
      });
    if (found.pagesMissing === true)
      return yield* new GodwitError({
        code: "migration-in-progress",
        actor: "ram-sender",
        side: "source",
        step: "describe the guest",
        reason: `pages of guest ${found.name} are still on their way to it; it can be saved once they are there`,
      });
    yield* Effect.try({ try: () => openFiles(found), catch: fileFailure("open the checkpoint") });
    const blocks = found.blocks.map(({ name, lengthBytes }) => ({ name, pages: lengthBytes / PAGE_BYTES }));
    return { _tag: "Described", blocks, running: found.runState === "running" } as const;
  }).pipe(Effect.provideService(Scope.Scope, scope));

  const openFiles = (found: GuestDescription): void => {
    const { machine, blocks } = found;
    const { path, start } = place;
    const opened = openWriter({ path, id: save.id, machine, start, blocks, ramSection: RAM_SECTION_ID });
    writer = opened;
    if (save.parameters["direct-io"] === "on" && !takesDirectIo(opened.partialPath))
      throw new GodwitError({
        ...DIRECT_IO,
        reason: `the file system of ${path} takes no direct I/O; leave direct-io off`,
      });
    exportCheckpoint(runtimeDirectory, save.id, "ram", opened.partialPath);
    exportFrom(blocks);
  };
  const exportFrom = (blocks: ReadonlyArray<RamBlock>): void => {
    readFrom = blocks;
    exportBlocks(runtimeDirectory, save.id, EPOCH, blocks);
  };

  const openTracker = (opened: Guest): Effect.Effect<SaveEvent, GodwitError> =>
    Effect.gen(function* () {
      trackerScope = yield* Scope.fork(scope);
      const made = yield* opened
        .track(save.parameters["dirty-tracker"])
        .pipe(Effect.provideService(Scope.Scope, trackerScope));
      tracker = made;
      yield* Effect.try({ try: () => exportFrom(made.readFrom), catch: fileFailure("export the guest's memory") });
      return { _tag: "TrackerOpened" };
    });

  const sync = (round: number): Effect.Effect<SaveEvent, GodwitError> =>
    Effect.suspend(() => {
      if (tracker === null) return Effect.never;
      const batch = batchRuns((block, runs) => dispatch({ _tag: "Found", round, block, runs }), "at the end");
      return tracker.sync(batch.add).pipe(
        Effect.mapError((cause) => new GodwitError({ ...SYNC, reason: cause.message })),
        Effect.map((): SaveEvent => {
          batch.flush();
          return { _tag: "Synced", round };
        }),
      );
    });

  const shut = (round: number): Effect.Effect<SaveEvent, GodwitError> =>
    Effect.sync(() => gate?.shut() ?? true).pipe(
      Effect.repeat({ until: (isShut) => isShut, schedule: Schedule.spaced(SHUT_AGAIN_MS) }),
      Effect.timeoutOrElse({
        duration: SHUT_MS,
        orElse: () =>
          Effect.fail(failed("end a round", `a multifd worker does not leave the checkpoint for ${SHUT_MS} ms`)),
      }),
      Effect.as({ _tag: "GateShut", round }),
    );

  /** All that stands behind the pages: the blocks that travel with the device state, and the devices. */
  const contentOf = (found: GuestDescription): Content => {
    const state = readFileSync(statePath);
    const stored = found.blocks.map(({ name, lengthBytes }, index) => ({
      name,
      lengthBytes,
      present: save.present[index]!,
    }));
    const sums = save.sums?.map((values, index) => ({ name: found.blocks[index]!.name, sums: values }));
    if (found.driver === "builtin")
      return {
        ramSection: RAM_SECTION_ID,
        blocks: stored,
        tail: builtinTail(state),
        ...(sums === undefined ? {} : { sums }),
      };
    const parts = takeApart(state, new Set(found.blocks.map(({ name }) => name)));
    const differs = found.blocks.find(
      ({ name, lengthBytes }) =>
        !parts.blocks.some((block) => block.name === name && block.lengthBytes === lengthBytes),
    );
    if (differs !== undefined)
      throw failed(
        "write the checkpoint",
        `QEMU's stream has no RAMBlock ${differs.name} of ${differs.lengthBytes} bytes`,
      );
    const { ramSection, own, tail } = parts;
    return { ramSection, blocks: [...stored, ...own], tail, ...(sums === undefined ? {} : { sums }) };
  };

  const finish = Effect.tryPromise({
    try: async (): Promise<SaveEvent> => {
      if (writer === null || description === null) throw new Error("there is no file");
      const fileBytes = await writer.finish(contentOf(description));
      withdrawExports(runtimeDirectory, save.id);
      return { _tag: "Finished", fileBytes };
    },
    catch: (cause) =>
      cause instanceof MalformedCheckpoint
        ? failed("write the checkpoint", `QEMU's device state is not what it should be: ${cause.message}`)
        : fileFailure("write the checkpoint")(cause),
  });

  const upload = Effect.gen(function* () {
    const { object, path, start } = place;
    if (object === null) return yield* failed("upload the checkpoint", "it belongs into no object store");
    const options = natsOptionsOf(settings, "ram-sender", `godwit ram-sender ${settings.node} checkpoint`);
    const store = yield* openObjectStore(options, object.bucket);
    yield* uploadCheckpoint(store, { name: object.name, id: save.id, path, start }, (bytes) =>
      dispatch({ _tag: "PartUploaded", bytes }),
    );
    rmSync(path, { force: true });
    if (save.stop) yield* note("note that the guest stays stopped", () => registry.settle(save.guest));
    return { _tag: "Uploaded" } as const;
  }).pipe(
    Effect.scoped,
    Effect.mapError((error) => {
      if (error instanceof GodwitError) return error;
      if (!(error instanceof FabricError)) return fileFailure("upload the checkpoint")(error);
      const code = error.code === "failed" || error.code === "closed" ? "nats-unreachable" : error.code;
      return new GodwitError({
        code,
        actor: "ram-sender",
        side: "source",
        step: error.operation,
        reason: error.reason,
      });
    }),
  );

  const withGuest = <A>(use: (opened: Guest) => Effect.Effect<A, GodwitError>): Effect.Effect<A, GodwitError> =>
    Effect.suspend(() => (guest === null ? Effect.fail(failed("reach the guest", "it was not opened")) : use(guest)));
  /** A guest that somebody else let go on has written behind the last round's back: its pages and its devices are of two moments. */
  const requireStill = (opened: Guest): Effect.Effect<void, GodwitError> =>
    Effect.flatMap(opened.describe, ({ runState }) =>
      runState === "running"
        ? Effect.fail(
            failed(
              "write the last round",
              `somebody let guest ${save.guest} go on while it stood still to be saved; save it again, and leave it alone meanwhile`,
            ),
          )
        : Effect.void,
    );
  const note = (step: string, write: () => void): Effect.Effect<void, GodwitError> =>
    Effect.try({ try: write, catch: asGodwitError("ram-sender", step) });

  // One after the other: a guest that is let go on while it is still being stopped would stand still in the end.
  const oneAtATime = yield* Semaphore.make(1);
  const take = (step: SaveStep, round: number): Effect.Effect<SaveEvent, GodwitError> => {
    switch (step) {
      case "describe":
        return describe;
      case "open-tracker":
        return withGuest(openTracker);
      case "open-gate":
        return Effect.try({
          try: (): SaveEvent => {
            gate = openGate(gateExport(runtimeDirectory, save.id, round, "ram"));
            return { _tag: "GateOpened", round };
          },
          catch: fileFailure("open the gate of a round"),
        });
      case "sync":
        return sync(round);
      case "shut-gate":
        return save.last ? Effect.tap(shut(round), () => withGuest(requireStill)) : shut(round);
      case "pause":
        // Noted first: a successor that finds the guest stopped must know that it was for this.
        return note("note that the guest is saved", () => registry.mark(save.guest, "saving")).pipe(
          Effect.andThen(withGuest((opened) => opened.pause)),
          Effect.as<SaveEvent>({ _tag: "Paused" }),
          oneAtATime.withPermits(1),
        );
      case "save-device-state":
        return Effect.sync(() => rmSync(statePath, { force: true })).pipe(
          Effect.andThen(
            withGuest((opened) =>
              // A guest that was let go on refuses; who asked shall hear why.
              Effect.catch(opened.saveDeviceState(statePath), (error) =>
                Effect.andThen(requireStill(opened), Effect.fail(error)),
              ),
            ),
          ),
          Effect.as<SaveEvent>({ _tag: "DeviceStateSaved" }),
          oneAtATime.withPermits(1),
        );
      case "resume":
        return withGuest((opened) => opened.resume).pipe(
          Effect.andThen(note("note that the guest goes on", () => registry.settle(save.guest))),
          Effect.as<SaveEvent>({ _tag: "Resumed" }),
          oneAtATime.withPermits(1),
        );
      case "upload":
        return upload;
      case "finish":
        return Effect.tap(finish, () =>
          // Until it is in the store a successor has to let the guest go on: there is no checkpoint yet.
          save.stop && place.object === null
            ? note("note that the guest stays stopped", () => registry.settle(save.guest))
            : Effect.void,
        );
    }
  };
  return {
    take: (step, round) => answering("ram-sender", step)(Effect.suspend(() => take(step, round))),
    closeTracker,
    abandon,
    places: () =>
      readFrom.map(({ fileOffset }, index) => ({
        fileOffset,
        pagesOffset: writer?.layout.blocks[index]?.pagesOffset ?? 0,
      })),
  };
});

const DIRECT_IO = { code: "not-supported", actor: "ram-sender", side: "source", step: "open the checkpoint" } as const;
const SYNC = { code: "tracker-failed", actor: "ram-sender", side: "source", step: "sync the dirty bitmap" } as const;
