/** `query-migrate`'s answer as the terminal shows it. */
import type { MigrationInfo } from "@godwit/protocol";
import type { Progress } from "../terminal/progress.ts";
import { renderSummary, type Summary } from "../terminal/summary.ts";
import { deviceBytesOf, timelinesOf } from "./devices-view.ts";
import { waterfallOf } from "./waterfall-view.ts";

/** A prediction beyond this is none: nothing was measured yet, ms. */
const DOWNTIME_KNOWN_MAX_MS = 1e12;

/** `bytesPerSecond`: measured over several states, see `pace.ts`. */
export const progressOf = (info: MigrationInfo, bytesPerSecond: number | null): Progress => {
  const { ram, vfio } = info;
  const devices = deviceBytesOf(info);
  const expected = info.downtime ?? info["expected-downtime"];
  const round = ram?.["dirty-sync-count"] ?? 0;
  return {
    status: info.status,
    round,
    totalBytes: (ram?.total ?? 0) + devices.moved + devices.left,
    remainingBytes: ramLeft(ram) + devices.left,
    deviceBytesLeft: vfio === undefined ? null : devices.left,
    bytesPerSecond,
    // The first sync finds everything dirty; a rate is known from the second one on.
    dirtyBytesPerSecond: ram === undefined || round < 2 ? null : ram["dirty-pages-rate"] * ram["page-size"],
    predictedDowntimeMs: expected === undefined || expected > DOWNTIME_KNOWN_MAX_MS ? null : expected,
  };
};

/** Before the first sync has ended nothing is known to be left, and nothing has been sent: that is all of it. */
const ramLeft = (ram: MigrationInfo["ram"]): number =>
  ram === undefined ? 0 : ram.transferred === 0 && ram.remaining === 0 ? ram.total : ram.remaining;

/** Megabits/s over all the time in which pages were moved; `ram.mbps` is that of the last round. */
const meanMbps = (info: MigrationInfo): number | undefined => {
  const movedMs = info["total-time"] - (info["setup-time"] ?? 0);
  return info.ram === undefined || movedMs <= 0 ? undefined : (info.ram.transferred * 8) / (movedMs * 1000);
};

/** Of a postcopy. */
const faultsOf = (info: MigrationInfo): Pick<Summary, "faults"> => {
  const latency = info["postcopy-latency"];
  if (latency === undefined) return {};
  const { p50, p99, max } = latency;
  return {
    faults: { pages: info["postcopy-requests"] ?? 0, p50, p99, max, blockedMs: info["postcopy-blocktime"] ?? 0 },
  };
};

/** Of all channels and purposes. */
const packetsOf = ({ channels = [] }: MigrationInfo): Pick<Summary, "packets"> => {
  const counts = channels.flatMap(({ lanes = [] }) => lanes);
  if (counts.length === 0) return {};
  const sum = (lane: "nats" | "direct"): number => counts.reduce((all, count) => all + count[lane], 0);
  return { packets: { nats: sum("nats"), direct: sum("direct") } };
};

/** What was looked at once it had ended, and by whom: the guest its pages, a judge its devices. */
export type Verified = Pick<Summary, "verified" | "devicesVerified">;

export const summaryText = (info: MigrationInfo, verified: Verified = {}): string => {
  const mbps = meanMbps(info);
  return renderSummary({
    status: info.status,
    totalTimeMs: info["total-time"],
    rounds: info.ram?.["dirty-sync-count"] ?? 0,
    pagesNormal: info.ram?.normal ?? 0,
    pagesZero: info.ram?.duplicate ?? 0,
    bytes: info.ram?.transferred ?? 0,
    channels: info.channels?.length ?? 0,
    ...(info.downtime === undefined ? {} : { downtimeMs: info.downtime }),
    waterfall: waterfallOf(info.waterfall),
    ...(mbps === undefined ? {} : { throughputMbps: mbps }),
    devices: timelinesOf(info),
    ...(info.encryption === undefined ? {} : { cipher: info.encryption.cipher }),
    ...packetsOf(info),
    ...faultsOf(info),
    ...verified,
  });
};
