/** Numbers in [0, 1) that depend on the seed alone. */
export type Random = () => number;

/**
 * mulberry32: 32 bits of state, period 2^32, a few ns per number. Good enough to choose faults, and small enough to be the
 * same on every machine for ever, which a seed kept in a bug report needs.
 */
export function seededRandom(seed: number): Random {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
