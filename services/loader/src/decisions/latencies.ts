/** How long many things took: counted in classes that grow with the time, so that room does not grow with their number. Pure; ms. */

/** Classes for each doubling: a percentile is at most a tenth too high or too low. */
const CLASSES_PER_DOUBLING = 8;
/** The shortest time that is told from 0, ms; and doublings from there: half an hour. */
const SHORTEST_MS = 0.001;
const DOUBLINGS = 31;

export interface Latencies {
  readonly counts: Uint32Array;
  count: number;
  maxMs: number;
}

export interface LatencySummary {
  readonly count: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

export const makeLatencies = (): Latencies => ({
  counts: new Uint32Array(DOUBLINGS * CLASSES_PER_DOUBLING + 1),
  count: 0,
  maxMs: 0,
});

export const addLatency = (latencies: Latencies, ms: number): void => {
  const { counts } = latencies;
  const exponent = Math.log2(Math.max(ms, SHORTEST_MS) / SHORTEST_MS);
  counts[Math.min(counts.length - 1, Math.ceil(exponent * CLASSES_PER_DOUBLING))]!++;
  latencies.count++;
  latencies.maxMs = Math.max(latencies.maxMs, ms);
};

/** Percentiles are taken as if what is in a class were spread evenly over it, and are never above the greatest. */
export const summaryOf = (latencies: Latencies): LatencySummary => ({
  count: latencies.count,
  p50: percentile(latencies, 0.5),
  p90: percentile(latencies, 0.9),
  p99: percentile(latencies, 0.99),
  max: latencies.maxMs,
});

const percentile = ({ counts, count, maxMs }: Latencies, part: number): number => {
  if (count === 0) return 0;
  let below = 0;
  for (let index = 0; index < counts.length; below += counts[index]!, index++) {
    if (below + counts[index]! < count * part) continue;
    const from = index === 0 ? 0 : endOfClass(index - 1);
    return Math.min(maxMs, from + (endOfClass(index) - from) * ((count * part - below) / counts[index]!));
  }
  return maxMs;
};

const endOfClass = (index: number): number => SHORTEST_MS * 2 ** (index / CLASSES_PER_DOUBLING);
