import { formatBytes, formatMs, formatPercent, formatRate, UNKNOWN } from "./format.ts";

/** What a migration looks like at one moment. `null`: not known yet. */
export interface Progress {
  /** QEMU's name: `setup`, `active`, `device`, ... */
  readonly status: string;
  /** Counted from 1; 0 before the first. */
  readonly round: number;
  /** All of the guest's RAM, and what its devices have given and are known to owe, bytes. */
  readonly totalBytes: number;
  /** What the destination does not hold yet, bytes. */
  readonly remainingBytes: number;
  /** What of it is state of VFIO devices; null: the guest has none. */
  readonly deviceBytesLeft: number | null;
  readonly bytesPerSecond: number | null;
  readonly dirtyBytesPerSecond: number | null;
  readonly predictedDowntimeMs: number | null;
}

/** The bar's width does not follow the text's, which would make it jump; a narrow terminal has none. Columns, characters. */
const barWidth = (columns: number): number => (columns >= 100 ? 24 : columns >= 80 ? 12 : 0);

/** `[#####-----]`, `width` characters with its brackets; full only when all is done. */
export const progressBar = (fraction: number, width: number): string => {
  const inner = Math.max(0, width - 2);
  const done = Math.floor(Math.min(1, Math.max(0, fraction)) * inner);
  return `[${"#".repeat(done)}${"-".repeat(inner - done)}]`;
};

/** Later bytes of a round are dirtied again: the share may shrink when a round begins. */
const sentFraction = ({ totalBytes, remainingBytes }: Progress): number =>
  totalBytes > 0 ? 1 - remainingBytes / totalBytes : 0;

const devicesLeft = ({ deviceBytesLeft }: Progress): string =>
  deviceBytesLeft === null ? "" : ` (devices ${formatBytes(deviceBytesLeft)})`;

/** What is worth a place in the line, most important first. */
const facts = (progress: Progress): ReadonlyArray<string> => [
  formatPercent(sentFraction(progress)),
  progress.bytesPerSecond === null ? UNKNOWN : formatRate(progress.bytesPerSecond),
  `${formatBytes(progress.remainingBytes)} left${devicesLeft(progress)}`,
  `downtime ${progress.predictedDowntimeMs === null ? UNKNOWN : `~${formatMs(progress.predictedDowntimeMs)}`}`,
  `dirtied ${progress.dirtyBytesPerSecond === null ? UNKNOWN : formatRate(progress.dirtyBytesPerSecond)}`,
];

/**
 * One line of at most `columns - 1` characters (in the last column some terminals wrap). Facts that have no room are left out,
 * the least important first.
 */
export const progressLine = (progress: Progress, columns: number): string => {
  const room = columns - 1;
  const bar = barWidth(columns);
  let line = bar === 0 ? "" : `${progressBar(sentFraction(progress), bar)} `;
  line += `${progress.status} round ${progress.round}`;
  for (const fact of facts(progress)) {
    if (line.length + 2 + fact.length > room) break;
    line += `  ${fact}`;
  }
  return line.slice(0, room);
};
