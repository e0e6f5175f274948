import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import { openTracker, type TrackerKind } from "@godwit/memory";
import type { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as RcRef from "effect/RcRef";
import type * as Scope from "effect/Scope";
import type { Guest, GuestDriver } from "../guest.ts";
import { describeQemu, type QemuDescription } from "./description.ts";
import { loadDeviceState, saveDeviceState } from "./device-state.ts";
import { endingOf } from "./ending.ts";
import { asFailure, failure, qmpFailure } from "./failure.ts";
import { type IncomingPostcopy, openPostcopy, rejoinPostcopy } from "./incoming-postcopy.ts";
import { type QemuSpec, qemuLogTail } from "./launch.ts";
import type { QemuBlock } from "./memory-backend.ts";
import { type ChangeBack, type PutBack, setForDeviceState } from "./migration-settings.ts";
import type { QemuReach } from "./postcopy-line.ts";
import { connectQmp, type Qmp } from "./qmp.ts";
import type { QmpError } from "./qmp-error.ts";
import { discardQemu, pauseQemu, resumeQemu, wrongState } from "./run-control.ts";
import { readRunState, readState } from "./run-state.ts";

/**
 * An unmodified QEMU (8 or later), through its monitor. Opening one does nothing: `launchQemu` starts a destination.
 *
 * Operations that go on at the same time share a connection, which takes 1 ms to open and ends with the last of them: a monitor
 * serves one client at a time and lets the next one wait. So several actors of a host can use one guest, and a QEMU started
 * anew on the same socket is found.
 */
export const QemuDriver: GuestDriver<QemuSpec> = {
  kind: "qemu",
  open: (spec) =>
    Effect.map(RcRef.make({ acquire: connectQmp(spec.qmp) }), (monitor) => makeGuest(spec, RcRef.get(monitor))),
};

const PREPARE = "prepare to save the device state";
const SAVE = "save the device state";
const LOAD = "load the device state";
const TRACK = "start dirty tracking";

const makeGuest = (spec: QemuSpec, monitor: Effect.Effect<Qmp, QmpError, Scope.Scope>): Guest => {
  const withMonitor = <A>(step: string, work: (qmp: Qmp) => Effect.Effect<A, GodwitError>) =>
    monitor.pipe(Effect.mapError(qmpFailure(step)), Effect.flatMap(work), Effect.scoped);
  const description = withMonitor("describe", (qmp) => describeQemu(qmp, spec.name));
  let incoming: IncomingPostcopy | null = null;
  let givenUp: string | null = null;
  /** Its migration is set for a save (`prepareToSave`). */
  let isSet = false;
  /** By a connection that it may have to open anew; nobody waits for it. */
  const putBackLater: PutBack = (changeBack) =>
    Effect.asVoid(Effect.forkDetach(Effect.scoped(withSettingsBack(monitor, changeBack)), { startImmediately: true }));
  const reach: QemuReach = {
    spec,
    monitor,
    givenUp: (reason) => {
      givenUp = reason;
    },
  };
  return {
    describe: Effect.map(description, publicDescription),
    track: (kind) => Effect.flatMap(description, (found) => track(found, kind)),
    pause: withMonitor("pause", pauseQemu),
    resume: withMonitor("resume", resumeQemu),
    prepareToSave: Effect.gen(function* () {
      // Held, so that nobody else has the monitor between here and the save.
      const qmp = yield* Effect.mapError(monitor, qmpFailure(PREPARE));
      yield* Effect.acquireRelease(
        Effect.tap(Effect.mapError(setForDeviceState(qmp), asFailure(PREPARE)), () =>
          Effect.sync(() => {
            isSet = true;
          }),
        ),
        (changeBack) =>
          Effect.suspend(() => {
            isSet = false;
            return changeBack(qmp);
          }),
      );
    }),
    saveDeviceState: (path) => withMonitor(SAVE, (qmp) => save(qmp, path, isSet ? "changed" : "to be changed")),
    prepareForPostcopy: Effect.gen(function* () {
      incoming = yield* openPostcopy(reach);
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          incoming = null;
        }),
      );
    }),
    loadDeviceState: (path) =>
      Effect.suspend(() => incoming?.load(path) ?? withMonitor(LOAD, (qmp) => load(spec, qmp, path, putBackLater))),
    expectPages: (blocks) => Effect.suspend(() => incoming?.expectPages(blocks) ?? rejoinPostcopy(reach, blocks)),
    discard: monitor.pipe(
      Effect.matchEffect({
        onSuccess: discardQemu,
        // It is gone already.
        onFailure: (error) => (error.kind === "absent" ? Effect.void : Effect.fail(qmpFailure("discard")(error))),
      }),
      Effect.scoped,
    ),
    ending: Effect.map(endingOf(monitor, spec.qmp), (ending) =>
      givenUp === null ? ending : { how: "crashed", reason: givenUp },
    ),
  };
};

const withSettingsBack = (monitor: Effect.Effect<Qmp, QmpError, Scope.Scope>, changeBack: ChangeBack) =>
  Effect.flatMap(monitor, changeBack).pipe(
    Effect.catch((error) => Effect.logWarning(`migration settings stay changed: ${error.message}`)),
  );

const publicDescription = ({ blocks, ...description }: QemuDescription) => ({
  ...description,
  blocks: blocks.map(({ address: _, ramBlock: __, ...block }) => block),
});

const save = (
  qmp: Qmp,
  path: string,
  settings: Parameters<typeof saveDeviceState>[2],
): Effect.Effect<number, GodwitError> =>
  Effect.gen(function* () {
    const state = yield* readRunState(qmp).pipe(Effect.mapError(qmpFailure(SAVE)));
    if (state.runState !== "paused") return yield* wrongState(SAVE, state, "pause it first");
    if (state.status === "postmigrate")
      return yield* wrongState(
        SAVE,
        state,
        "it gave its device state away, which it does once; resume and pause it first",
      );
    return yield* saveDeviceState(qmp, path, settings);
  });

const load = (spec: QemuSpec, qmp: Qmp, path: string, putBack: PutBack): Effect.Effect<void, GodwitError> =>
  Effect.gen(function* () {
    const state = yield* readState(qmp).pipe(Effect.mapError(qmpFailure(LOAD)));
    // A migration that is over, and was none from here, was one to here.
    const loaded = state.migration.status === "completed" && state.migration["total-time"] === undefined;
    if (loaded && state.runState === "paused") return;
    if (state.runState !== "incoming")
      return yield* wrongState(LOAD, state, "start it with -incoming defer, and discard it after a failure");
    yield* loadDeviceState(qmp, path, putBack).pipe(
      // QEMU's own answer is "Input/output error" where its log names the device.
      Effect.mapError((error) => {
        const tail = qemuLogTail(spec);
        return tail === "" ? error : failure(error.code, error.step, `${error.reason}; its log ends with: ${tail}`);
      }),
    );
  });

/** f_type of tmpfs. */
const TMPFS_MAGIC = 0x01021994;

/** Where the content tracker may keep its shadow copy: beside the guest's RAM if that lies in memory, too. */
const shadowDirectory = (block: QemuBlock): string => {
  const directory = dirname(block.path);
  return statfsSync(block.path).type === TMPFS_MAGIC && !directory.startsWith("/proc/") ? directory : "/dev/shm";
};

const track = ({ pid, blocks }: QemuDescription, kind: TrackerKind | "auto") =>
  Effect.try({
    try: () => shadowDirectory(blocks[0]!),
    catch: (cause) => failure("tracker-failed", TRACK, String(cause)),
  }).pipe(
    Effect.flatMap((shadowDirectory) =>
      openTracker({
        kind,
        // Where the address is not known, the trackers that need it find nothing at 0 and refuse; `content` does without.
        process: {
          pid,
          blocks: blocks.map((block) => ({ ...block, address: block.address ?? 0n })),
          userfaultfd: false,
        },
        shadowDirectory,
      }).pipe(Effect.mapError((cause) => failure("tracker-failed", TRACK, cause.message))),
    ),
  );
