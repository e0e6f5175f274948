/**
 * A QEMU that takes a migration which may become a postcopy: godwit speaks to it as the source of one, in QEMU's own stream
 * (docs/devel/migration/postcopy.rst).
 *
 *     godwit                                              QEMU, started with -incoming defer
 *       | --- head, OPEN_RETURN_PATH, ADVISE, PING ---------> |   throws away what its RAM holds
 *       | <---------------------------------------- PONG --- |
 *       |     pages are written into its RAM files            |
 *       |                                                     |   precopy was enough:
 *       | --- RAM START, its own blocks, END, devices, EOF -> |   paused
 *       |                                                     |   postcopy:
 *       | --- RAM START, its own blocks --------------------> |
 *       | --- PACKAGED { LISTEN, devices, PING, RUN } ------> |   registers its RAM for faults; paused, `cont` runs it
 *       | <----------------------------------- REQ_PAGES --- |   somebody has touched a page that is not there
 *       | --- RAM PART: pages ------------------------------> |   in place
 *       | --- RAM END, EOF ---------------------------------> |   no page is missing any more
 *       | <---------------------------------------- SHUT --- |
 *
 * ADVISE comes first, since it empties RAM. RUN does not run a QEMU that was told to stop while it waited. From RUN on the end of a
 * connection costs nothing: QEMU is in `postcopy-paused` and takes another one; before, it fails or ends.
 */
import { readFileSync } from "node:fs";
import type { RamBlock } from "@godwit/memory";
import * as Bitmap from "@godwit/memory/bitmap";
import type { GodwitError } from "@godwit/protocol";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import * as Scope from "effect/Scope";
import type { MissingMemory } from "../missing-memory.ts";
import { describeQemu, type QemuDescription } from "./description.ts";
import { beginIncoming, migrationEnding, settled } from "./device-state.ts";
import { failure, localFailure } from "./failure.ts";
import * as Words from "./incoming-stream.ts";
import { qemuLogTail } from "./launch.ts";
import type { QemuBlock } from "./memory-backend.ts";
import { changeSettings } from "./migration-settings.ts";
import { makeMissingMemory, type QemuMissingMemory } from "./missing-memory.ts";
import { makeLine, type QemuReach, withMonitor } from "./postcopy-line.ts";
import type { Qmp } from "./qmp.ts";
import { QmpError } from "./qmp-error.ts";
import { rendezvousPath } from "./rendezvous.ts";
import type { ReturnMessage } from "./return-path.ts";
import { quitQemu } from "./run-control.ts";
import { isIncomingPostcopy, MigrationInfo, readState } from "./run-state.ts";
import { readSavedState, type SavedState } from "./saved-state.ts";
import { connectStream, type StreamConnection } from "./stream-connection.ts";

const PREPARE = "prepare QEMU for a postcopy";
const EXPECT = "wait for missing pages";
const LOAD = "load the device state";

/** QEMU empties its RAM, of which a freshly started one has hardly any. */
const ADVISE_TIMEOUT: Duration.Input = "30 seconds";
/** As without postcopy. A device may touch a page that is missing, which comes over the network. */
const LOAD_TIMEOUT: Duration.Input = "30 seconds";
/** How long QEMU may take to say why it ended the connection. */
const LAST_WORD: Duration.Input = "2 seconds";

const PING = { advised: 1, loaded: 2 } as const;
/** Those of the postcopy itself, which end with it. */
const CAPABILITIES = ["postcopy-ram", "postcopy-blocktime"];
const SETTINGS = { capabilities: new Set([...CAPABILITIES, "events"]), parameters: {} };
/** The largest host pages whose guests are moved so, bytes: one is held and sent as a whole, several times over. */
const HOST_PAGE_BYTES_MAX = 2 * 1024 ** 2;

/** A QEMU whose stream is open. */
export interface IncomingPostcopy {
  /** The same memory, whoever asks. */
  readonly expectPages: (blocks: ReadonlyArray<RamBlock>) => Effect.Effect<MissingMemory, GodwitError>;
  /** Loads the device state at `path`, saved with x-ignore-shared. All of RAM must be there, unless `expectPages` came before. */
  readonly load: (path: string) => Effect.Effect<void, GodwitError>;
}

/**
 * Opens the stream into a QEMU that waits; the scope's end closes it. Trap: QEMU takes one stream in its life, so from here on it is of no
 * use to another attempt.
 */
export const openPostcopy = Effect.fnUntraced(function* (
  reach: QemuReach,
): Effect.fn.Return<IncomingPostcopy, GodwitError, Scope.Scope> {
  const scope = yield* Effect.scope;
  const description = yield* withMonitor(reach, PREPARE, (qmp) => describeQemu(qmp, reach.spec.name));
  const refusal = refusalOf(description);
  if (refusal !== null) return yield* refusal;
  let memory: QemuMissingMemory | null = null;
  const heard = (message: ReturnMessage): void => memory?.hear(message);
  const { connection, changeBack } = yield* withMonitor(reach, PREPARE, (qmp) =>
    Effect.gen(function* () {
      const changeBack = yield* changeSettings(qmp, SETTINGS).pipe(Effect.catch(unsupported));
      const socket = yield* rendezvousPath(qmp).pipe(Effect.mapError(localFailure(PREPARE)));
      yield* beginIncoming(qmp, `unix:${socket}`);
      const connection = yield* connectStream(socket, heard).pipe(
        Effect.provideService(Scope.Scope, scope),
        Effect.tap((opened) => advise(opened, description)),
        Effect.catch((error) => explained(reach, qmp, error)),
        // It takes no other stream.
        Effect.onError(() => Effect.ignore(quitQemu(qmp))),
      );
      return { connection, changeBack };
    }),
  );

  const expectPages: IncomingPostcopy["expectPages"] = (expected) =>
    Effect.gen(function* () {
      const blocks = yield* ownBlocks(description, expected);
      memory ??= yield* makeMissingMemory(blocks, yield* makeLine(reach, blocks, connection, changeBack));
      return memory;
    }).pipe(Effect.provideService(Scope.Scope, scope));

  const load: IncomingPostcopy["load"] = (path) =>
    withMonitor(reach, LOAD, (qmp) =>
      Effect.gen(function* () {
        const saved = yield* readSaved(path, description);
        if (memory !== null) return yield* loadWithout(qmp, connection, memory, saved);
        yield* loadAll(qmp, connection, saved);
        yield* changeBack(qmp);
      }).pipe(Effect.catch((error) => explained(reach, qmp, error))),
    );
  return { expectPages, load };
});

/**
 * The memory of a QEMU that another one has fed: for whoever goes on where a former life of this actor stopped. Fails with `not-supported`
 * for a QEMU that waits for no pages.
 */
export const rejoinPostcopy = Effect.fnUntraced(function* (
  reach: QemuReach,
  expected: ReadonlyArray<RamBlock>,
): Effect.fn.Return<MissingMemory, GodwitError, Scope.Scope> {
  const { description, migration } = yield* withMonitor(reach, EXPECT, (qmp) =>
    Effect.gen(function* () {
      const description = yield* describeQemu(qmp, reach.spec.name);
      return { description, migration: (yield* readState(qmp)).migration };
    }),
  );
  const blocks = yield* ownBlocks(description, expected);
  const line = yield* makeLine(reach, blocks, null, forgetCapabilities);
  // That life has brought the last page, and was not there to hear of it.
  if (migration.status === "completed" && migration["total-time"] === undefined) return allThere(line);
  if (!isIncomingPostcopy(migration))
    return yield* failure(
      "not-supported",
      EXPECT,
      `guest ${reach.spec.name} is a QEMU that was not prepared for a postcopy before its pages came`,
    );
  const memory = yield* makeMissingMemory(blocks, line);
  const rejoined = yield* line.rejoin(memory.hear);
  memory.goesOnOver(rejoined);
  // What the former life had sent and QEMU has not received is lost.
  return { ...memory, notPlaced: rejoined.received.map(Bitmap.inverse) };
});

const allThere = (line: Pick<MissingMemory, "vcpus" | "giveUp">): MissingMemory => ({
  ...line,
  touches: () => Effect.never,
  copy: () => {},
  zero: () => {},
  placed: () => Effect.void,
  end: Effect.void,
});

/** What the other settings were before is not known any more. */
const forgetCapabilities = (qmp: Qmp): Effect.Effect<void> =>
  qmp
    .execute("migrate-set-capabilities", Schema.Unknown, {
      capabilities: CAPABILITIES.map((capability) => ({ capability, state: false })),
    })
    .pipe(
      Effect.catch((error) => Effect.logWarning(`${CAPABILITIES.join(" and ")} stay on: ${error.message}`)),
      Effect.asVoid,
    );

const refusalOf = ({ blocks, runState }: QemuDescription): GodwitError | null => {
  if (runState !== "incoming")
    return failure("wrong-state", PREPARE, `it is ${runState}; start it with -incoming defer`);
  const huge = blocks.find(({ hostPageBytes }) => hostPageBytes > HOST_PAGE_BYTES_MAX);
  if (huge === undefined) return null;
  const what = `its RAM "${huge.name}" has pages of ${huge.hostPageBytes} bytes`;
  return failure("not-supported", PREPARE, `${what}; those of a postcopy may have ${HOST_PAGE_BYTES_MAX} at most`);
};

/** QEMU looks at its host, and at its RAM, when the capability is switched on. */
const unsupported = (error: QmpError): Effect.Effect<never, GodwitError | QmpError> =>
  Effect.fail(error.kind === "refused" ? failure("not-supported", PREPARE, `QEMU says: ${error.reason}`) : error);

const advise = (connection: StreamConnection, { machine, blocks }: QemuDescription): Effect.Effect<void, GodwitError> =>
  Effect.suspend(() => {
    const advised = pongOf(connection, PING.advised, ADVISE_TIMEOUT);
    const words = [Words.head(machine), Words.openReturnPath, Words.advise(blocks), Words.ping(PING.advised)];
    connection.send(Buffer.concat(words));
    return advised;
  });

const pongOf = (
  connection: StreamConnection,
  ping: number,
  timeout: Duration.Input,
): Effect.Effect<void, GodwitError> =>
  Effect.asVoid(
    connection.awaiting("QEMU's answer", (message) => message.kind === "pong" && message.ping === ping, timeout),
  );

/** The guest's own blocks, in the order in which they are expected. */
const ownBlocks = (
  { blocks }: QemuDescription,
  expected: ReadonlyArray<RamBlock>,
): Effect.Effect<ReadonlyArray<QemuBlock>, GodwitError> => {
  const own = expected.map(({ name }) => blocks.find((block) => block.name === name) ?? name);
  const unknown = own.filter((block) => typeof block === "string");
  return unknown.length === 0
    ? Effect.succeed(own.filter((block) => typeof block !== "string"))
    : Effect.fail(failure("incompatible", EXPECT, `QEMU has no RAM "${unknown.join('", "')}"`));
};

const readSaved = (path: string, { blocks }: QemuDescription): Effect.Effect<SavedState, GodwitError> =>
  Effect.try({
    try: () =>
      readSavedState(
        readFileSync(path),
        new Map(blocks.map(({ ramBlock, hostPageBytes }) => [ramBlock, hostPageBytes])),
      ),
    catch: (cause) =>
      failure("device-state-failed", LOAD, `${path}: ${cause instanceof Error ? cause.message : cause}`),
  });

/** As from a source whose precopy has converged. */
const loadAll = Effect.fnUntraced(function* (
  qmp: Qmp,
  connection: StreamConnection,
  { start, ownPages, tail }: SavedState,
): Effect.fn.Return<void, GodwitError, Scope.Scope> {
  const ending = yield* migrationEnding(qmp, LOAD);
  connection.send(Buffer.concat([start, ...ownPages, Words.ramEnd, tail]));
  // QEMU ends the connection when it has all, too.
  const brokenOff = Effect.andThen(
    connection.ended,
    Effect.delay(Effect.fail(failure("device-state-failed", LOAD, "QEMU ended the connection")), LAST_WORD),
  );
  yield* Effect.raceFirst(ending, brokenOff).pipe(withinTime);
  yield* settled(qmp);
});

/** As from a source that goes over to postcopy. */
const loadWithout = Effect.fnUntraced(function* (
  qmp: Qmp,
  connection: StreamConnection,
  memory: QemuMissingMemory,
  { start, ownBlocks, ownPages, sections }: SavedState,
): Effect.fn.Return<void, GodwitError> {
  const [own] = ownBlocks;
  if (own === undefined)
    return yield* failure("not-supported", LOAD, "QEMU has no RAMBlock of its own, and none that may be thrown away");
  const loaded = pongOf(connection, PING.loaded, LOAD_TIMEOUT);
  const devices = Buffer.concat([Words.listen, sections, Words.ping(PING.loaded), Words.run]);
  // All pages of the block follow: of what is thrown away nothing is lost.
  connection.send(Buffer.concat([start, Words.discard(own, 0, 1), ...ownPages, Words.packaged(devices)]));
  memory.listensOver(connection);
  yield* loaded;
  yield* settled(qmp);
});

const withinTime = Effect.timeoutOrElse({
  duration: LOAD_TIMEOUT,
  orElse: () => Effect.fail(failure("device-state-failed", LOAD, `QEMU did not end it within ${LOAD_TIMEOUT}`)),
});

/** QEMU's own word for what went wrong is in its state; the device that would not load is named in its log only. */
const explained = (
  { spec }: QemuReach,
  qmp: Qmp,
  error: GodwitError | QmpError,
): Effect.Effect<never, GodwitError | QmpError> =>
  Effect.gen(function* () {
    if (error instanceof QmpError) return yield* error;
    const info = yield* Effect.result(qmp.execute("query-migrate", MigrationInfo));
    const description = info._tag === "Success" ? info.success["error-desc"] : undefined;
    const tail = qemuLogTail(spec);
    const reasons = [
      error.reason,
      ...(description === undefined ? [] : [`QEMU says: ${description}`]),
      ...(tail === "" ? [] : [`its log ends with: ${tail}`]),
    ];
    return yield* failure(error.code, error.step, reasons.join("; "));
  });
