/**
 * Which packets of one subkey have come (as IPsec and DTLS keep it): the highest counter, and a bit for each of those below that may still be
 * on their way. What is older than the window is refused as if it had come.
 *
 *     | older: refused | bit, bit, bit ... WINDOW_PACKETS of them | highest | new |
 */

/** More than can be on its way at once: 32 MiB of credits in packets of four pages are 2,048. */
export const WINDOW_PACKETS = 4096;

/** Mutable, and owned by one receiver. */
export interface ReplayWindow {
  highest: number;
  /** The bit of counter n stands at n modulo WINDOW_PACKETS. */
  readonly bits: Uint32Array;
}

export const makeWindow = (): ReplayWindow => ({ highest: 0, bits: new Uint32Array(WINDOW_PACKETS / 32) });

const place = (counter: number): number => counter % WINDOW_PACKETS;

/** Whether it has come before, or may have. */
export const hasCome = ({ highest, bits }: ReplayWindow, counter: number): boolean => {
  if (counter > highest) return false;
  if (highest - counter >= WINDOW_PACKETS) return true;
  const at = place(counter);
  return (bits[at >>> 5]! & (1 << (at & 31))) !== 0;
};

/** Notes a counter whose packet was found to be true. */
export const note = (window: ReplayWindow, counter: number): void => {
  const { bits } = window;
  if (counter - window.highest >= WINDOW_PACKETS) bits.fill(0);
  else
    for (let skipped = window.highest + 1; skipped < counter; skipped++) {
      const at = place(skipped);
      bits[at >>> 5]! &= ~(1 << (at & 31));
    }
  window.highest = Math.max(window.highest, counter);
  const at = place(counter);
  bits[at >>> 5]! |= 1 << (at & 31);
};
