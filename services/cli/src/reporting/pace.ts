import type { MigrationInfo } from "@godwit/protocol";

/** What a rate is taken over, ms: long enough to be steady to the eye, short enough to follow a change. */
const WINDOW_MS = 1000;

/** Measures the bytes/s of a migration, devices included, from what comes by: `ram.mbps` begins at nothing with each round. Null until two states have come. */
export const openPace = (): ((info: MigrationInfo) => number | null) => {
  let samples: ReadonlyArray<{ readonly atMs: number; readonly bytes: number }> = [];
  return (info) => {
    if (info.ram === undefined) return null;
    const now = { atMs: info["total-time"], bytes: info.ram.transferred + (info.vfio?.transferred ?? 0) };
    // A new attempt counts from zero again.
    if (samples.some(({ bytes }) => bytes > now.bytes)) samples = [];
    const recent = samples.filter(({ atMs }) => now.atMs - atMs <= WINDOW_MS);
    // At least one older sample, however old: states may come seldom.
    samples = [...(recent.length > 0 ? recent : samples.slice(-1)), now];
    const first = samples[0] ?? now;
    return now.atMs > first.atMs ? ((now.bytes - first.bytes) * 1000) / (now.atMs - first.atMs) : null;
  };
};
