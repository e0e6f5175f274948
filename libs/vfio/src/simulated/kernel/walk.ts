/** In what order things change: scattered, each once before any a second time. */

/** Steps of this fraction of a circle keep away from where they have been the longest. */
const GOLDEN = 0.618;

/** The step of a walk over `count` things that comes to each of them: the `n`th is `(n * stride) % count`. */
export const strideOf = (count: number): number => {
  let stride = Math.max(1, Math.floor(count * GOLDEN));
  while (greatestCommonDivisor(stride, count) !== 1) stride++;
  return stride;
};

const greatestCommonDivisor = (a: number, b: number): number => (b === 0 ? a : greatestCommonDivisor(b, a % b));

/** Counts up the `steps` things of the walk that come after the first `walked`. */
export const walkOn = (counters: Uint32Array, stride: number, walked: number, steps: number): void => {
  const count = counters.length;
  const rounds = Math.floor(steps / count);
  if (rounds > 0) for (let i = 0; i < count; i++) counters[i] = counters[i]! + rounds;
  const rest = steps % count;
  let at = ((walked % count) * stride) % count;
  for (let i = 0; i < rest; i++) {
    counters[at] = counters[at]! + 1;
    at += stride;
    if (at >= count) at -= count;
  }
};
