/** The answer of `query-migrate` from what a coordinator knows. */
import { type MigrationId, type MigrationInfo, type MigrationStatus, type RamInfo, toError } from "@godwit/protocol";
import type { Migration, SavedMigration } from "./migration-state.ts";

export const statusOf = (migration: Migration): MigrationStatus => {
  const { phase } = migration;
  switch (phase._tag) {
    case "Ended":
      return phase.status;
    case "Aborting":
    case "Reckoning":
      return phase.next === "cancelled" ? "cancelling" : phase.next === "retry" ? "setup" : migration.status;
    case "Claiming":
    case "Preparing":
    case "Starting":
      return "setup";
    case "Active":
      return "active";
    case "Switching":
      return migration.sourceReport?.phase === "pre-switchover" ? "pre-switchover" : "device";
    case "Adopting":
    case "Ending":
    case "Replaced":
      return migration.status;
  }
};

/** While it runs `mbps` is the present rate; at the end it is the mean over the whole migration, as QEMU shows it. */
const withMeanRate = (ram: RamInfo, migration: Migration): RamInfo => {
  const ms = Math.max(1, (migration.endedAt ?? 0) - migration.startedAt - (migration.setupMs ?? 0));
  return {
    ...ram,
    mbps: (ram.transferred * 8) / (ms * 1000),
    "pages-per-second": Math.round((ram.normal * 1000) / ms),
  };
};

/** What an operator should know besides numbers: above all why a guest stands still (O8). */
const noteOf = (migration: Migration): string | null => {
  const lost = migration.destinationReport?.phase === "failed" ? migration.destinationReport.failure : undefined;
  if (migration.phase._tag === "Ended" && migration.phase.status === "completed" && lost !== undefined)
    return `the guest was handed over and has ended at node ${migration.destination} before it ran: ${lost.reason}`;
  if (migration.endedAt !== null) return null;
  const unknownMs = migration.sourceReport?.["record-unknown-for"] ?? 0;
  if (unknownMs === 0) return null;
  const seconds = Math.max(1, Math.round(unknownMs / 1000));
  return `the ownership record cannot be reached since ${seconds} s: the guest stands still at both sides until it can; NATS JetStream needs attention`;
};

export const infoOf = (migration: Migration, now: number, status = statusOf(migration)): MigrationInfo => {
  const report = migration.sourceReport;
  const note = noteOf(migration);
  const failure = status === "completed" ? null : migration.failure;
  return {
    migration: migration.migration as MigrationId,
    guest: migration.guest,
    source: migration.source,
    destination: migration.destination,
    status,
    "total-time": (migration.endedAt ?? now) - migration.startedAt,
    attempts: migration.attempt,
    ...(note === null ? {} : { note }),
    ...(migration.setupMs === null ? {} : { "setup-time": migration.setupMs }),
    ...(migration.expectedDowntimeMs === null || migration.endedAt !== null
      ? {}
      : { "expected-downtime": Math.round(Math.min(migration.expectedDowntimeMs, Number.MAX_SAFE_INTEGER)) }),
    ...(report?.downtime === undefined ? {} : { downtime: report.downtime }),
    ...(report?.["downtime-parts"] === undefined ? {} : { "downtime-parts": report["downtime-parts"] }),
    ...(report?.ram === undefined
      ? {}
      : { ram: status === "completed" ? withMeanRate(report.ram, migration) : report.ram }),
    ...(report?.channels === undefined ? {} : { channels: report.channels }),
    ...(report?.verify === undefined ? {} : { verify: report.verify }),
    ...(report?.["dirty-tracker"] === undefined ? {} : { "dirty-tracker": report["dirty-tracker"] }),
    ...(failure === null ? {} : { error: failure, "error-desc": toError(failure).message }),
  };
};

/** What a successor needs. An ending is written before anybody hears of it. */
export const savedOf = (migration: Migration, now: number): SavedMigration => {
  const { phase } = migration;
  return {
    term: migration.term,
    owner: migration.tenure.owner,
    attempt: migration.attempt,
    epoch: migration.epoch,
    startedAt: migration.startedAt,
    parameters: migration.parameters,
    continuedAttempt: migration.continuedAttempt,
    undoing: phase._tag === "Aborting" || phase._tag === "Reckoning" ? phase.next : null,
    capabilities: migration.capabilities,
    failure: migration.failure,
    info: infoOf(migration, now, phase._tag === "Ending" ? phase.status : statusOf(migration)),
  };
};
