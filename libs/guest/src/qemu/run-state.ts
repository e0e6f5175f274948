import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import type { RunState } from "../guest.ts";
import type { Qmp } from "./qmp.ts";
import type { QmpError } from "./qmp-error.ts";

/** What `query-status` answers. */
export const QemuStatus = Schema.Struct({ status: Schema.String, running: Schema.Boolean });

/** What `query-migrate` answers, as far as it matters here. */
export const MigrationInfo = Schema.Struct({
  status: Schema.optionalKey(Schema.String),
  "error-desc": Schema.optionalKey(Schema.String),
  "blocked-reasons": Schema.optionalKey(Schema.Array(Schema.String)),
  /** Counted on the sending side only: with it, a migration that is over was one from here. */
  "total-time": Schema.optionalKey(Schema.Number),
  /** Of a postcopy that has come here, once it is over, ms; with the capability of that name. */
  "postcopy-blocktime": Schema.optionalKey(Schema.Number),
  "postcopy-vcpu-blocktime": Schema.optionalKey(Schema.Array(Schema.Number)),
});
export type MigrationInfo = typeof MigrationInfo.Type;

/** Migration statuses of QEMU in which nothing is under way. */
const SETTLED = new Set([undefined, "none", "completed", "failed", "cancelled"]);

/** True while a migration that QEMU itself does is under way. */
export const migrationIsUnderWay = (info: MigrationInfo): boolean => !SETTLED.has(info.status);

/** True from the load of a postcopy's device state until all pages have come: QEMU waits for those that are touched. */
export const isIncomingPostcopy = (info: MigrationInfo): boolean =>
  info.status?.startsWith("postcopy-") === true && info["total-time"] === undefined;

/** What a QEMU is doing. */
export interface QemuState {
  /** QEMU's own word for it. */
  readonly status: string;
  readonly migration: MigrationInfo;
  /** The same in ours; null while QEMU is busy with something that must end first. */
  readonly runState: RunState | null;
}

/** Asks a QEMU what it is doing. */
export const readState = (qmp: Qmp): Effect.Effect<QemuState, QmpError> =>
  Effect.gen(function* () {
    const { status } = yield* qmp.execute("query-status", QemuStatus);
    const migration = yield* qmp.execute("query-migrate", MigrationInfo);
    return { status, migration, runState: runStateOf(status, migration) };
  });

/** The same without what its migration says, which is asked only where the run state depends on it: while a guest stands still each answer counts. */
export const readRunState = (qmp: Qmp): Effect.Effect<Omit<QemuState, "migration">, QmpError> =>
  Effect.gen(function* () {
    const { status } = yield* qmp.execute("query-status", QemuStatus);
    const migration = status === "inmigrate" ? yield* qmp.execute("query-migrate", MigrationInfo) : {};
    return { status, runState: runStateOf(status, migration) };
  });

/** QEMU's own run states in ours; null for those in which it is busy with something that must end first. */
export const runStateOf = (status: string, migration: MigrationInfo): RunState | null => {
  switch (status) {
    case "running":
      return "running";
    // `prelaunch`: started with -S; `postmigrate`: its device state was taken, and it can go on.
    case "paused":
    case "prelaunch":
    case "postmigrate":
      return "paused";
    // QEMU takes a device state once in its life: with a first try begun, however it went, this one is used up.
    case "inmigrate":
      return migration.status === undefined || migration.status === "none" ? "incoming" : "failed";
    case "shutdown":
      return "shutdown";
    case "internal-error":
    case "io-error":
    case "guest-panicked":
    case "watchdog":
      return "failed";
    default:
      return null;
  }
};
