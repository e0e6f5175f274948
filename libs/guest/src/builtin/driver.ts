/** Reaches guests of our own kind over their monitor. */

import { rmSync } from "node:fs";
import { dirname } from "node:path";
import { probeMissingFaults } from "@godwit/host";
import { openTracker, type RamBlock, type TrackerKind } from "@godwit/memory";
import type { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import * as Schema from "effect/Schema";
import type { Guest, GuestDescription, GuestDriver, GuestEnding } from "../guest.ts";
import { filesBeside } from "./files.ts";
import type { BuiltinSpec } from "./launch.ts";
import { borrowMissingMemory } from "./missing-memory.ts";
import { ask, guestError, isDeserted } from "./monitor-client.ts";
import { removeLeftover } from "./ram.ts";
import { refusalOf } from "./refusal.ts";

const RunState = Schema.Literals(["running", "paused", "incoming", "shutdown", "failed"]);

const Description = Schema.Struct({
  name: Schema.String,
  pid: Schema.Int,
  machine: Schema.String,
  version: Schema.String,
  runState: RunState,
  block: Schema.Struct({
    name: Schema.String,
    lengthBytes: Schema.Int,
    path: Schema.String,
    hostPageBytes: Schema.Int,
    address: Schema.BigIntFromString,
  }),
  userfaultfd: Schema.Boolean,
  missingFd: Schema.NullOr(Schema.Int),
});

const Listening = Schema.Struct({ fd: Schema.Int });
const Saved = Schema.Struct({ lengthBytes: Schema.Int });

/** What a sweep or a check of guest memory found; see `verification.ts`. `bad` holds the first 16 of `badCount` bad pages. */
export const Verification = Schema.Struct({
  done: Schema.Boolean,
  pagesChecked: Schema.Int,
  pagesTotal: Schema.Int,
  badCount: Schema.Int,
  bad: Schema.Array(
    Schema.Struct({
      page: Schema.Int,
      expectedVersion: Schema.Int,
      found: Schema.Literals(["lost", "stale", "torn", "foreign"]),
    }),
  ),
});
export type Verification = typeof Verification.Type;

/** What a guest has done in its present process; see `machine.ts`. */
export const BuiltinStats = Schema.Struct({
  runState: RunState,
  pagesWritten: Schema.Int,
  pagesDropped: Schema.Int,
  ranMs: Schema.Finite,
  workload: Schema.NullOr(
    Schema.Struct({
      seed: Schema.Int,
      vcpus: Schema.Int,
      dirtyRateBytesPerSecond: Schema.Int,
      workingSetBytes: Schema.Int,
      mix: Schema.Struct({
        zero: Schema.Int,
        compressible: Schema.Int,
        random: Schema.Int,
        counted: Schema.optionalKey(Schema.Int),
      }),
    }),
  ),
});
export type BuiltinStats = typeof BuiltinStats.Type;

const Ending = Schema.Struct({ how: Schema.Literals(["shutdown", "crashed"]), reason: Schema.String });

const command = (spec: BuiltinSpec, execute: string) =>
  ask({ socket: spec.socket, pid: spec.pid, execute }, Schema.Null).pipe(Effect.asVoid);

const describe = (spec: BuiltinSpec) => ask({ socket: spec.socket, pid: spec.pid, execute: "describe" }, Description);

const blockOf = ({ block }: typeof Description.Type): RamBlock => ({
  name: block.name,
  lengthBytes: block.lengthBytes,
  hostPageBytes: block.hostPageBytes,
  path: block.path,
  fileOffset: 0,
});

/** How the guest's memory turns out after a load: waits until every page was checked. Fails with `wrong-state` when it was never loaded. */
export const awaitVerified = (spec: BuiltinSpec): Effect.Effect<Verification, GodwitError> =>
  ask({ socket: spec.socket, pid: spec.pid, execute: "await-verified", until: "done" }, Verification);

/** What that sweep has found so far. */
export const readVerification = (spec: BuiltinSpec): Effect.Effect<Verification, GodwitError> =>
  ask({ socket: spec.socket, pid: spec.pid, execute: "verify" }, Verification);

/** Checks every page of a paused guest now: about 0.25 ms for each MiB with 2 vCPUs. */
export const checkMemory = (spec: BuiltinSpec): Effect.Effect<Verification, GodwitError> =>
  ask({ socket: spec.socket, pid: spec.pid, execute: "check", until: "done" }, Verification);

/** Memory of a guest that waits for pages which are not there: what whoever places them needs to know. */
export interface MissingPages {
  readonly pid: number;
  /** The userfaultfd, in the guest's process; to be borrowed. */
  readonly fd: number;
  /** Where the block lies in the guest's process. */
  readonly address: bigint;
  readonly block: RamBlock;
}

/** Lets the vCPUs of an incoming guest wait for pages that are not there. Fails with `not-supported` where the host cannot. */
export const listenForPages = Effect.fnUntraced(function* (
  spec: BuiltinSpec,
): Effect.fn.Return<MissingPages, GodwitError> {
  const { fd } = yield* ask({ socket: spec.socket, pid: spec.pid, execute: "postcopy-listen" }, Listening);
  const description = yield* describe(spec);
  return { pid: spec.pid, fd, address: description.block.address, block: blockOf(description) };
});

/** All pages are there: what was not placed is zeros, and no touch is waited for any more. */
export const endListening = (spec: BuiltinSpec): Effect.Effect<void, GodwitError> => command(spec, "postcopy-end");

/** Pages that a guest waits for cannot be had: it has failed, and goes no further. */
export const giveUpPages = (spec: BuiltinSpec, reason: string): Effect.Effect<void, GodwitError> =>
  ask({ socket: spec.socket, pid: spec.pid, execute: "postcopy-give-up", arguments: { reason } }, Schema.Null).pipe(
    Effect.asVoid,
  );

/** Lets a running guest reboot, as if by itself: it fills its memory anew and begins from the start, in the same process. */
export const resetBuiltin = (spec: BuiltinSpec): Effect.Effect<void, GodwitError> => command(spec, "reset");

/** Lets a running guest power itself off; its process and its files go with it. */
export const shutDownBuiltin = (spec: BuiltinSpec): Effect.Effect<void, GodwitError> => command(spec, "shutdown");

/** What the guest has done so far. */
export const readStats = (spec: BuiltinSpec): Effect.Effect<BuiltinStats, GodwitError> =>
  ask({ socket: spec.socket, pid: spec.pid, execute: "stats" }, BuiltinStats);

/**
 * Nothing is held open between two operations but by `ending`: a guest that has ended is noticed by the next one, with
 * `guest-failed`, or `no-such-guest` when another process has its socket; `discard` takes both for success.
 */
export const BuiltinDriver: GuestDriver<BuiltinSpec> = {
  kind: "builtin",
  open: (spec) => Effect.succeed(makeGuest(spec)),
};

const makeGuest = (spec: BuiltinSpec): Guest => ({
  describe: describe(spec).pipe(
    Effect.map(
      (description): GuestDescription => ({
        name: description.name,
        driver: "builtin",
        machine: description.machine,
        version: description.version,
        blocks: [blockOf(description)],
        runState: description.runState,
        pid: description.pid,
        ...(description.missingFd === null ? {} : { pagesMissing: true }),
      }),
    ),
  ),
  track: (kind) => track(spec, kind),
  pause: command(spec, "pause"),
  resume: command(spec, "resume"),
  prepareToSave: Effect.void,
  saveDeviceState: (path) =>
    ask({ socket: spec.socket, pid: spec.pid, execute: "save", arguments: { path } }, Saved).pipe(
      Effect.map((saved) => saved.lengthBytes),
    ),
  // Nothing of it is prepared: its process waits for pages from the moment on that it is told to. It is of this user and host, and can
  // what this one can.
  prepareForPostcopy: Effect.suspend(() => {
    const ability = probeMissingFaults();
    return ability._tag === "Works"
      ? Effect.void
      : Effect.fail(guestError("not-supported", "wait for missing pages", ability.reason));
  }),
  loadDeviceState: (path) =>
    ask({ socket: spec.socket, pid: spec.pid, execute: "load", arguments: { path } }, Schema.Null).pipe(Effect.asVoid),
  expectPages: () =>
    Effect.flatMap(listenForPages(spec), (waiting) =>
      borrowMissingMemory(waiting, {
        vcpus: Effect.map(readStats(spec), ({ workload }) => workload?.vcpus ?? 0),
        end: endListening(spec),
        giveUp: (reason) => giveUpPages(spec, reason),
      }),
    ),
  discard: discard(spec),
  ending: ending(spec),
});

const track = Effect.fnUntraced(function* (spec: BuiltinSpec, kind: TrackerKind | "auto") {
  const description = yield* describe(spec);
  const block = blockOf(description);
  // Whoever reads its memory now would fill the gaps with zeros.
  if (description.missingFd !== null)
    return yield* guestError(
      "migration-in-progress",
      "start dirty tracking",
      `pages of guest ${spec.name} are still on their way to it; it can be moved or saved once they are there`,
    );
  const process = {
    pid: description.pid,
    blocks: [{ ...block, address: description.block.address }],
    userfaultfd: description.userfaultfd,
  };
  // Where the RAM file found room, there is the best hope for a copy of it.
  return yield* openTracker({ kind, process, shadowDirectory: dirname(spec.socket) }).pipe(
    Effect.mapError((cause) => guestError("tracker-failed", "start dirty tracking", cause.message)),
  );
});

/** Ends the process and waits for its end; what a killed one left behind is removed for it. */
const discard = (spec: BuiltinSpec): Effect.Effect<void, GodwitError> =>
  ask({ socket: spec.socket, pid: spec.pid, execute: "quit", until: "closed" }, Schema.Null).pipe(
    Effect.asVoid,
    Effect.catch((error) => {
      if (error.code === "no-such-guest") return Effect.void;
      return Effect.flatMap(isDeserted(spec.socket), (deserted) => (deserted ? removeFiles(spec) : Effect.fail(error)));
    }),
  );

/** Between two looks at a guest whose monitor broke off and that may still be there, ms. */
const LOOK_AGAIN_MS = 50;

/** The end of the connection is no proof: only that nobody listens any more, or somebody else does. */
const ending = Effect.fnUntraced(function* (spec: BuiltinSpec): Effect.fn.Return<GuestEnding> {
  const request = { socket: spec.socket, pid: spec.pid, execute: "await-ending", until: "done" } as const;
  for (;;) {
    const answer = yield* Effect.result(ask(request, Ending));
    if (answer._tag === "Success") return answer.success;
    if (answer.failure.code === "no-such-guest" || (yield* isDeserted(spec.socket))) {
      return { how: "crashed", reason: `its process ${spec.pid} is gone without a word: it was killed or has crashed` };
    }
    yield* Effect.sleep(LOOK_AGAIN_MS);
  }
});

/** A process that was killed holds its lock until its memory is given back, an instant or, for hundreds of GiB, seconds. */
const LAST_BREATH = { schedule: Schedule.spaced("20 millis"), times: 500 };

const removeFiles = (spec: BuiltinSpec): Effect.Effect<void, GodwitError> =>
  Effect.try({
    try: () => {
      const files = filesBeside(spec.socket, spec.name);
      removeLeftover(files.ram);
      removeLeftover(filesBeside(spec.socket, spec.name, true).ram);
      rmSync(files.socket, { force: true });
    },
    catch: (cause) => guestError(refusalOf(cause).code, "remove the guest's files", refusalOf(cause).message),
  }).pipe(Effect.retry({ ...LAST_BREATH, while: (error) => error.code === "guest-exists" }));
