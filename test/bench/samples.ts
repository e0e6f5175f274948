/** Repeated measurements of one thing, and how far to trust them. */

/** The middle one, or the mean of the two in the middle. NaN without samples. */
export const median = (samples: ReadonlyArray<number>): number => {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};

export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly samples: ReadonlyArray<number>;
}

export const spreadOf = (samples: ReadonlyArray<number>): Spread => ({
  median: median(samples),
  least: Math.min(...samples),
  most: Math.max(...samples),
  samples,
});

/** `0.93 (0.91-0.95)`: the median, and between which values all samples lie. */
export const showSpread = (spread: Spread, digits: number): string =>
  `${spread.median.toFixed(digits)} (${spread.least.toFixed(digits)}-${spread.most.toFixed(digits)})`;
