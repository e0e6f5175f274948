/** The answer of `query-migrate` from what a coordinator knows. */
import {
  type ChannelInfo,
  encryptionInfo,
  fieldsOfPostcopy,
  type MigrationId,
  type MigrationInfo,
  type MigrationStatus,
  type RamInfo,
  statusOfPostcopy,
  toError,
} from "@godwit/protocol";
import { deviceNoteOf, vfioOf } from "./devices.ts";
import type { Migration, SavedMigration } from "./migration-state.ts";

/** A loader that is not heard for so long may be gone, ms. */
const SILENT_MS = 3000;

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
    case "Postcopy":
      return migration.sourceReport === null && migration.destinationReport === null
        ? migration.status
        : statusOfPostcopy(migration.destinationReport?.postcopy ?? null);
    case "Adopting":
    case "Ending":
    case "Replaced":
      return migration.status;
  }
};

/** What came in a postcopy the destination has counted. */
const ramOf = (ram: RamInfo, { destinationReport }: Migration): RamInfo => {
  const postcopy = destinationReport?.postcopy;
  if (postcopy === undefined) return ram;
  return { ...ram, remaining: postcopy.remaining, transferred: ram.transferred + postcopy.transferred };
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
const noteOf = (migration: Migration, status: MigrationStatus, now: number): string | null => {
  const lost = migration.destinationReport?.phase === "failed" ? migration.destinationReport.failure : undefined;
  if (migration.phase._tag === "Ended" && migration.phase.status === "completed" && lost !== undefined)
    return `the guest was handed over and has ended at node ${migration.destination} before it ran: ${lost.reason}`;
  if (migration.endedAt !== null) return deviceNoteOf(migration, status);
  if (migration.phase._tag === "Postcopy") return postcopyNoteOf(migration, now);
  const unknownMs = migration.sourceReport?.["record-unknown-for"] ?? 0;
  if (unknownMs === 0) return null;
  const seconds = Math.max(1, Math.round(unknownMs / 1000));
  return `the ownership record cannot be reached since ${seconds} s: the guest stands still at both sides until it can; NATS JetStream needs attention`;
};

/** What is at stake. */
const postcopyNoteOf = (
  { sourceReport, destinationReport, source, destination, destinationHeardAt }: Migration,
  now: number,
): string => {
  const info = destinationReport?.postcopy;
  const silentMs = now - destinationHeardAt;
  const left = info === undefined ? "pages" : `${Math.ceil(info.remaining / 1024 ** 2)} MiB of its memory`;
  const why = sourceReport?.failure?.reason ?? info?.reason;
  const stake = `the guest runs at node ${destination}, and ${left} are at node ${source} only: if either is lost, so is the guest`;
  if (why !== undefined) return `${stake}; ${why}`;
  if (silentMs < SILENT_MS) return stake;
  return `${stake}; the loader of node ${destination} has not been heard for ${Math.round(silentMs / 1000)} s`;
};

/** Once the destination says that it is so; not because it was asked for. */
const encryptionOf = ({ destinationReport }: Migration): Pick<MigrationInfo, "encryption"> => {
  const refused = destinationReport?.["refused-packets"];
  return refused === undefined ? {} : { encryption: encryptionInfo(refused) };
};

/**
 * As the source has bound them, and as the destination has seen their packets come. Where both sides did not agree nothing came, and what did in an
 * earlier attempt would not fit the bucket beside a hundred differences.
 */
const channelsOf = (
  channels: ReadonlyArray<ChannelInfo>,
  { destinationReport, failure }: Migration,
): ReadonlyArray<ChannelInfo> => {
  const all = destinationReport?.lanes;
  if (all === undefined || failure?.differences !== undefined) return channels;
  return channels.map((info) => {
    const lanes = all.flatMap(({ channel, ...count }) => (channel === info.channel ? [count] : []));
    return lanes.length === 0 ? info : { ...info, lanes };
  });
};

/**
 * The source places what the destination has measured between what it has measured itself. Where it is gone (it died in the switchover,
 * and the destination had all of it), the destination's parts are all that is known, and nobody knows for how long the guest stood still.
 */
const waterfallOf = ({ sourceReport, destinationReport, epoch }: Migration): Pick<MigrationInfo, "waterfall"> => {
  if (sourceReport !== null) return sourceReport.waterfall === undefined ? {} : { waterfall: sourceReport.waterfall };
  if (destinationReport?.waterfall === undefined || destinationReport.epoch !== epoch) return {};
  return { waterfall: { parts: destinationReport.waterfall.parts } };
};

export const infoOf = (migration: Migration, now: number, status = statusOf(migration)): MigrationInfo => {
  const report = migration.sourceReport;
  const postcopy = migration.destinationReport?.postcopy;
  const note = noteOf(migration, status, now);
  const ram = report?.ram === undefined ? null : ramOf(report.ram, migration);
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
    ...waterfallOf(migration),
    ...(ram === null ? {} : { ram: status === "completed" ? withMeanRate(ram, migration) : ram }),
    ...(report?.["xbzrle-cache"] === undefined ? {} : { "xbzrle-cache": report["xbzrle-cache"] }),
    ...(report?.channels === undefined ? {} : { channels: channelsOf(report.channels, migration) }),
    ...(report?.verify === undefined ? {} : { verify: report.verify }),
    ...vfioOf(migration),
    ...encryptionOf(migration),
    ...(postcopy === undefined ? {} : fieldsOfPostcopy(postcopy)),
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
    postcopyWanted: migration.postcopyWanted,
    word: migration.word,
    givenUp: migration.givingUp !== null,
    undoing: phase._tag === "Aborting" || phase._tag === "Reckoning" ? phase.next : null,
    capabilities: migration.capabilities,
    failure: migration.failure,
    info: infoOf(migration, now, phase._tag === "Ending" ? phase.status : statusOf(migration)),
  };
};
