import type { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import type { GuestDescription } from "../guest.ts";
import { failure, qmpFailure } from "./failure.ts";
import { listMemoryBackends, locateBlock, type QemuBlock, refusalOfBackend } from "./memory-backend.ts";
import type { Qmp } from "./qmp.ts";
import { isIncomingPostcopy, migrationIsUnderWay, readState } from "./run-state.ts";

/** The oldest QEMU that is known to keep RAM out of its device state as this driver expects. */
const QEMU_MAJOR_MIN = 8;

const STEP = "describe the guest";

/** A description, and what only a dirty tracker needs. */
export interface QemuDescription extends GuestDescription {
  readonly blocks: ReadonlyArray<QemuBlock>;
}

/**
 * Describes a guest, or refuses it with `guest-not-movable` and everything that stands in the way, so that nothing is sent for
 * a migration that could not end.
 */
export const describeQemu = (qmp: Qmp, name: string): Effect.Effect<QemuDescription, GodwitError> =>
  Effect.gen(function* () {
    const { major, minor, micro } = qmp.version;
    const version = `${major}.${minor}.${micro}`;
    // Everything else is asked in a way that older versions may not understand.
    if (major < QEMU_MAJOR_MIN)
      return yield* refuse([
        `it runs on QEMU ${version}; use QEMU ${QEMU_MAJOR_MIN} or later, older ones cannot leave RAM out`,
      ]);

    const { status, migration, runState } = yield* readState(qmp).pipe(Effect.mapError(qmpFailure(STEP)));
    const backends = yield* listMemoryBackends(qmp).pipe(Effect.mapError(qmpFailure(STEP)));
    const obstacles = [
      ...backends.map(refusalOfBackend).filter((reason) => reason !== null),
      ...(migration["blocked-reasons"] ?? []).map((reason) => `QEMU says: ${reason}; remove what blocks its migration`),
      // One that comes in has a run state of its own.
      ...(migrationIsUnderWay(migration) && status !== "inmigrate" && !isIncomingPostcopy(migration)
        ? [`QEMU is in a migration of its own (${migration.status}); wait for its end`]
        : []),
    ];
    if (runState === null) obstacles.push(`it is in run state "${status}"; wait until it is running or paused`);
    if (backends.length === 0) obstacles.push("it has no memory backend");
    if (runState === null || obstacles.length > 0) return yield* refuse(obstacles);

    const blocks = yield* Effect.try({
      try: () => backends.map((backend) => locateBlock(backend, qmp.peer.pid)),
      catch: (cause) =>
        refusal([`${cause instanceof Error ? cause.message : String(cause)}; run godwit where QEMU runs`]),
    });
    const machine = yield* qmp
      .execute("qom-get", Schema.String, { path: "/machine", property: "type" })
      .pipe(Effect.mapError(qmpFailure(STEP)));
    return {
      name,
      driver: "qemu",
      machine: machine.replace(/-machine$/, ""),
      version: qmp.version.package === "" ? version : `${version} (${qmp.version.package})`,
      blocks,
      runState,
      pid: qmp.peer.pid,
      ...(isIncomingPostcopy(migration) ? { pagesMissing: true } : {}),
    };
  });

const refusal = (obstacles: ReadonlyArray<string>): GodwitError =>
  failure("guest-not-movable", STEP, obstacles.join("; also, "));

const refuse = (obstacles: ReadonlyArray<string>) => Effect.fail(refusal(obstacles));
