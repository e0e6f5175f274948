/** What stands for a number that is not known (yet). */
export const UNKNOWN = "-";

const BINARY_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Three figures, as many as a reader can use: `1.02`, `10.2`, `102`. */
const threeFigures = (value: number): string => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);

/** Bytes in the unit that leaves at most four figures: `512 B`, `1.00 GiB`. */
export const formatBytes = (bytes: number): string => {
  if (!Number.isFinite(bytes)) return UNKNOWN;
  let value = bytes;
  let unit = 0;
  // 1023.5, not 1024: what would be rounded to 1024 belongs to the next unit.
  while (Math.abs(value) >= 1023.5 && unit < BINARY_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${Math.round(value)} B` : `${threeFigures(value)} ${BINARY_UNITS[unit]}`;
};

/** Bytes per second: `48.2 MiB/s`. */
export const formatRate = (bytesPerSecond: number): string =>
  Number.isFinite(bytesPerSecond) ? `${formatBytes(bytesPerSecond)}/s` : UNKNOWN;

/** A duration, given in ms: `0.42 ms`, `42 ms`, `4.20 s`, `2 m 05 s`, `1 h 01 m`. */
export const formatMs = (ms: number): string => {
  if (!Number.isFinite(ms)) return UNKNOWN;
  if (ms < 9.995) return ms === 0 ? "0 ms" : `${ms.toFixed(2)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${threeFigures(ms / 1000)} s`;
  const seconds = Math.round(ms / 1000);
  const two = (value: number): string => String(value).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} m`;
};

/** A count with its thousands set apart: `262,144`. */
export const formatCount = (count: number): string =>
  Number.isFinite(count) ? Math.round(count).toLocaleString("en-US") : UNKNOWN;

/** A fraction of 1 as percent, never 100 % before all is done: `99 %`. */
export const formatPercent = (fraction: number): string =>
  Number.isFinite(fraction) ? `${Math.floor(Math.min(1, Math.max(0, fraction)) * 100)} %` : UNKNOWN;
