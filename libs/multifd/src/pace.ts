/** `max-bandwidth` as a token bucket: bytes are spent when an item is handed out. Pure; `now` in ms. */

/** Saved-up bandwidth that may be spent at once, ms: long enough to ride out a busy event loop, short against any bandwidth an operator watches. */
const BURST_MS = 50;

export interface Pace {
  bytesPerSecond: number;
  tokens: number;
  at: number;
}

/** `bytesPerSecond` 0 is unlimited. */
export const make = (bytesPerSecond: number, now: number): Pace => ({ bytesPerSecond, tokens: 0, at: now });

/** True when something may be sent now; the bucket may go into debt by one item, so that items larger than a burst still pass. */
export const maySpend = (pace: Pace, now: number): boolean => {
  if (pace.bytesPerSecond === 0) return true;
  const burst = (pace.bytesPerSecond * BURST_MS) / 1000;
  // A clock that was set back by an hour must not put the pace an hour into debt.
  const elapsedMs = Math.max(0, now - pace.at);
  pace.tokens = Math.min(burst, pace.tokens + (elapsedMs * pace.bytesPerSecond) / 1000);
  pace.at = now;
  return pace.tokens >= 0;
};

export const spend = (pace: Pace, bytes: number): void => {
  if (pace.bytesPerSecond !== 0) pace.tokens -= bytes;
};

/** What was spent on pages that did not travel: `max-bandwidth` limits bytes on the wire, as QEMU's does, and zero pages have none. */
export const refund = (pace: Pace, bytes: number): void => {
  if (pace.bytesPerSecond !== 0) pace.tokens += Math.max(0, bytes);
};

/** When the debt is paid, ms. */
export const payday = (pace: Pace): number =>
  pace.bytesPerSecond === 0 ? pace.at : pace.at + Math.max(1, (-pace.tokens * 1000) / pace.bytesPerSecond);

/** How long to wait before anything may be spent, ms; 0: not at all. */
export const waitMs = (pace: Pace, now: number): number => (maySpend(pace, now) ? 0 : Math.max(0, payday(pace) - now));
