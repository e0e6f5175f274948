/** `query-migrate`'s answer as the terminal shows it. */
import type { MigrationInfo } from "@godwit/protocol";
import type { Progress } from "../terminal/progress.ts";
import { renderSummary, type Summary } from "../terminal/summary.ts";

/** A prediction beyond this is none: nothing was measured yet, ms. */
const DOWNTIME_KNOWN_MAX_MS = 1e12;

/** `bytesPerSecond`: measured over several states, see `pace.ts`. */
export const progressOf = (info: MigrationInfo, bytesPerSecond: number | null): Progress => {
  const { ram } = info;
  const expected = info.downtime ?? info["expected-downtime"];
  const round = ram?.["dirty-sync-count"] ?? 0;
  return {
    status: info.status,
    round,
    totalBytes: ram?.total ?? 0,
    // Before the first sync has ended nothing is known to be left, and nothing has been sent: that is all of it.
    remainingBytes: ram === undefined ? 0 : ram.transferred === 0 && ram.remaining === 0 ? ram.total : ram.remaining,
    bytesPerSecond,
    // The first sync finds everything dirty; a rate is known from the second one on.
    dirtyBytesPerSecond: ram === undefined || round < 2 ? null : ram["dirty-pages-rate"] * ram["page-size"],
    predictedDowntimeMs: expected === undefined || expected > DOWNTIME_KNOWN_MAX_MS ? null : expected,
  };
};

/** Megabits/s over all the time in which pages were moved; `ram.mbps` is that of the last round. */
const meanMbps = (info: MigrationInfo): number | undefined => {
  const movedMs = info["total-time"] - (info["setup-time"] ?? 0);
  return info.ram === undefined || movedMs <= 0 ? undefined : (info.ram.transferred * 8) / (movedMs * 1000);
};

export const summaryText = (info: MigrationInfo, verified?: NonNullable<Summary["verified"]>): string => {
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
    ...(info["downtime-parts"] === undefined ? {} : { downtimeParts: info["downtime-parts"] }),
    ...(mbps === undefined ? {} : { throughputMbps: mbps }),
    ...(verified === undefined ? {} : { verified }),
  });
};
