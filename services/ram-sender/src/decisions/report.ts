/** How a source stands, in the words of the protocol. */
import { Ledger } from "@godwit/multifd";
import {
  type Epoch,
  encryptionInfo,
  type Incarnation,
  type MigrationId,
  type MigrationInfo,
  type MigrationStatus,
  PAGE_BYTES,
  type RamInfo,
  type SourceCommand,
  type SourcePhase,
  type SourceReport,
  toError,
  VERIFY_BLOCKS_SHOWN,
} from "@godwit/protocol";
import type { Source } from "./source-state.ts";
import { waterfallOf } from "./waterfall.ts";
import * as Xbzrle from "./xbzrle.ts";

const phaseOf = (source: Source): SourcePhase => {
  switch (source.phase._tag) {
    case "Claiming":
      return "claiming";
    case "Claimed":
      return "claimed";
    case "OpeningTracker":
    case "Precopy":
      return "precopy";
    case "Stopping":
    case "StoppingDevices":
    case "SavingDeviceState":
    case "FinalSync":
    case "SavingDevices":
      return "stopping";
    case "PreSwitchover":
      return "pre-switchover";
    case "Switching":
    case "AwaitingCommit":
      return "switching";
    case "Serving":
    case "Losing":
      return "postcopy";
    case "TakingBack":
    case "ReleasingDevices":
    case "Resuming":
    case "Releasing":
      return "taking-back";
    case "Discarding":
      return source.failure === null ? "completed" : "failed";
    case "Ended":
      return source.phase.outcome;
  }
};

const ramOf = (source: Source, now: number): RamInfo => {
  const { meter } = source;
  const elapsed = Math.max(1, now - meter.roundStartedAt);
  const rate = (meter.roundNormalBytes * 1000) / elapsed;
  return {
    total: source.blockPages.reduce((sum, pages) => sum + pages, 0) * PAGE_BYTES,
    remaining: Ledger.remainingBytes(source.ledger),
    transferred: meter.wireBytes,
    normal: meter.normalPages,
    duplicate: Math.max(0, meter.pages - meter.normalPages),
    "normal-bytes": meter.normalPages * PAGE_BYTES,
    "page-size": PAGE_BYTES,
    "dirty-sync-count": source.ledger.round,
    "dirty-pages-rate": Math.round(meter.dirtyPagesRate),
    "pages-per-second": Math.round(rate / PAGE_BYTES),
    mbps: (rate * 8) / 1_000_000,
    "multifd-bytes": meter.wireBytes,
    "resent-items": source.ledger.resentItems,
    ...(source.codec === null ? {} : { "multifd-codec": source.codec.codec }),
  };
};

const xbzrleOf = ({ xbzrle }: Source): Pick<SourceReport, "xbzrle-cache"> =>
  xbzrle === null ? {} : { "xbzrle-cache": Xbzrle.infoOf(xbzrle) };

/** Pages compared with the destination, by RAMBlock; nothing without capability `verify`. */
const verifyOf = (source: Source): Pick<SourceReport, "verify"> => {
  const { verification } = source.ledger;
  if (verification === null) return {};
  return {
    verify: verification.blocks
      .map(({ pagesChecked, pagesDamaged }, index) => ({
        block: source.offer?.blocks[index]?.name ?? String(index),
        "pages-checked": pagesChecked,
        "pages-damaged": pagesDamaged,
      }))
      .sort((a, b) => b["pages-damaged"] - a["pages-damaged"])
      .slice(0, VERIFY_BLOCKS_SHOWN),
  };
};

/** O8: while the guest stands still for it, for how long the record has been out of reach. */
const recordOf = (source: Source, now: number): Pick<SourceReport, "record-unknown-for"> => {
  const { phase, recordUnknownSince } = source;
  const waits = phase._tag === "Switching" || phase._tag === "AwaitingCommit" || phase._tag === "TakingBack";
  return waits && recordUnknownSince !== null ? { "record-unknown-for": now - recordUnknownSince } : {};
};

const downtimeOf = (source: Source): Pick<SourceReport, "downtime" | "waterfall"> => {
  const waterfall = waterfallOf(source);
  if (waterfall === null) return {};
  const { total } = waterfall;
  const hasMoved = source.marks.running !== 0 && source.failure === null && total !== undefined;
  return { ...(hasMoved ? { downtime: Math.round(total / 1000) } : {}), waterfall };
};

export const reportOf = (source: Source, now: number): SourceReport => ({
  migration: source.migration as MigrationId,
  term: source.authority.term,
  attempt: source.attempt,
  incarnation: source.incarnation as Incarnation,
  phase: phaseOf(source),
  epoch: source.epoch as Epoch,
  "parameters-revision": source.parametersRevision,
  ram: ramOf(source, now),
  ...xbzrleOf(source),
  channels: source.channels.lanes.map((lane) => ({
    channel: lane.channel,
    worker: lane.worker,
    epoch: lane.epoch,
    "in-flight": lane.inFlightBytes,
  })),
  ...(source.offer === null ? {} : { offer: source.offer }),
  ...(source.verdictWanted === null ? {} : { verdict: source.verdictWanted }),
  ...(source.tracker === null ? {} : { "dirty-tracker": source.tracker }),
  ...(source.devices?.report == null ? {} : { devices: source.devices.report.devices }),
  ...(source.failure === null ? {} : { failure: source.failure }),
  ...recordOf(source, now),
  ...verifyOf(source),
  ...downtimeOf(source),
});

/** How this side itself sees a migration that is on its way; the ending comes from the coordinator. */
export const infoOf = (source: Source, now: number): MigrationInfo => {
  const report = reportOf(source, now);
  return {
    migration: report.migration,
    guest: source.guest,
    source: source.node,
    destination: source.destination?.node ?? "",
    status: STATUS[report.phase],
    "total-time": now - source.startedAt,
    attempts: source.attempt,
    ram: ramOf(source, now),
    ...xbzrleOf(source),
    ...(report.channels === undefined ? {} : { channels: report.channels }),
    ...(source.tracker === null ? {} : { "dirty-tracker": source.tracker }),
    ...(source.failure === null ? {} : { error: source.failure, "error-desc": toError(source.failure).message }),
    // Nothing comes here that could be refused.
    ...(source.capabilities.encryption ? { encryption: encryptionInfo({ replayed: 0, forged: 0 }) } : {}),
    ...verifyOf(source),
    ...downtimeOf(source),
  };
};

const STATUS = {
  unknown: "none",
  claiming: "setup",
  claimed: "setup",
  precopy: "active",
  stopping: "device",
  "pre-switchover": "pre-switchover",
  switching: "device",
  postcopy: "postcopy-active",
  "taking-back": "failed",
  completed: "completed",
  failed: "failed",
} as const satisfies Record<SourcePhase, MigrationStatus>;

/** The answer of a process that knows nothing of the migration it was asked about. */
export const unknownReport = (command: SourceCommand, incarnation: string): SourceReport => ({
  migration: command.migration,
  term: command.term,
  attempt: 0,
  incarnation: incarnation as Incarnation,
  phase: "unknown",
  epoch: 0,
});
