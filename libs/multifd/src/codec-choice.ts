/**
 * `multifd-compression: auto`: the codec that moves most page bytes in a second, found by trying.
 *
 *     Trying as they are --> Trying compressed --> Holding the faster one --> Trying both again ...
 *
 * What limits a migration is the lane, the processors, `max-bandwidth` or how little its memory can be compressed, and no two hosts agree on
 * which. Acknowledged page bytes measure all of it at once, the loader's work included. Pure; `now` in ms.
 */
import type { Compression } from "@godwit/protocol";

/** In the order of trying; the first costs no processor time, and is kept unless the other one is clearly faster. */
export const CANDIDATES = ["none", "zstd"] as const satisfies ReadonlyArray<Compression>;
type Candidate = (typeof CANDIDATES)[number];

/** A trial lasts so long, ms, and has so many page bytes at least: enough that one late packet, or the way in, does not decide it. */
const TRIAL_MS = 300;
const TRIAL_BYTES_MIN = 1024 ** 2;
/**
 * What is in flight when the codec changes is answered before a trial begins, and as much again: `max-bandwidth` lends each item its full length until it is
 * answered, so a codec that saves some is not faster before its own answers come.
 */
const WINDOWS_BEFORE = 2;
/** How much faster compressed pages must come to be worth the processor time that guests could have had. */
const WORTH = 1.1;
/** Between two comparisons, ms: memory changes, and so does what else is on a lane. Twice as long each time that nothing has changed. */
const HOLD_MIN_MS = 2000;
const HOLD_MAX_MS = 30_000;
/** And so many times as long as the comparison took: on a slow lane what is out already takes seconds. */
const HOLD_TIMES = 20;

export interface CodecChoice {
  /** What the next item is sent with. */
  codec: Candidate;
  /** The faster one of the last comparison. */
  best: Candidate;
  /** Page bytes a millisecond of each, in the comparison under way. */
  readonly rates: Partial<Record<Candidate, number>>;
  /** Until then the best one is kept, ms; null: a comparison is under way. */
  holdUntil: number | null;
  holdMs: number;
  /** When the comparison under way has begun, ms. */
  comparingSince: number;
  /** Item bytes that are still to be answered before the trial begins: handed out before the codec changed, or while the way was changing. */
  before: number;
  /** Page bytes of this trial, and since when, ms. */
  bytes: number;
  since: number;
}

export const make = (now: number): CodecChoice => ({
  codec: CANDIDATES[0],
  best: CANDIDATES[0],
  rates: {},
  holdUntil: null,
  holdMs: HOLD_MIN_MS / 2,
  comparingSince: now,
  before: 0,
  bytes: 0,
  since: now,
});

/** A round begins: nothing is in flight, and what was waited for in between was not the lane. */
export const beginRound = (choice: CodecChoice, now: number): void => restart(choice, 0, now);

/** The guest stands still: no time for trying. */
export const settle = (choice: CodecChoice): void => {
  choice.codec = choice.best;
  choice.holdUntil = Number.POSITIVE_INFINITY;
};

/**
 * Items were acknowledged: `itemBytes` as they count in the window, `pageBytes` of them no zero pages. `inFlightBytes`: what is still out.
 */
export const applied = (
  choice: CodecChoice,
  items: { readonly itemBytes: number; readonly pageBytes: number },
  inFlightBytes: number,
  now: number,
): void => {
  if (choice.holdUntil !== null) {
    if (now < choice.holdUntil) return;
    choice.holdUntil = null;
    choice.comparingSince = now;
    return tryNext(choice, inFlightBytes, now);
  }
  if (choice.before > 0) {
    choice.before -= items.itemBytes;
    if (choice.before <= 0) restart(choice, 0, now);
    return;
  }
  choice.bytes += items.pageBytes;
  const elapsed = now - choice.since;
  if (elapsed < TRIAL_MS || choice.bytes < TRIAL_BYTES_MIN) return;
  choice.rates[choice.codec] = choice.bytes / Math.max(1, elapsed);
  tryNext(choice, inFlightBytes, now);
};

/** Tries a candidate of which nothing is known yet; knows all of them: keeps the best. */
const tryNext = (choice: CodecChoice, inFlightBytes: number, now: number): void => {
  const next = CANDIDATES.find((candidate) => choice.rates[candidate] === undefined);
  if (next === undefined) return hold(choice, inFlightBytes, now);
  use(choice, next, inFlightBytes, now);
};

const hold = (choice: CodecChoice, inFlightBytes: number, now: number): void => {
  const { none = 0, zstd = 0 } = choice.rates;
  const best = zstd > none * WORTH ? "zstd" : "none";
  choice.holdMs = best === choice.best ? Math.min(HOLD_MAX_MS, choice.holdMs * 2) : HOLD_MIN_MS;
  choice.best = best;
  choice.holdUntil = now + Math.max(choice.holdMs, HOLD_TIMES * (now - choice.comparingSince));
  for (const candidate of CANDIDATES) delete choice.rates[candidate];
  use(choice, best, inFlightBytes, now);
};

const use = (choice: CodecChoice, codec: Candidate, inFlightBytes: number, now: number): void => {
  const before = codec === choice.codec ? 0 : WINDOWS_BEFORE * inFlightBytes;
  choice.codec = codec;
  restart(choice, before, now);
};

const restart = (choice: CodecChoice, before: number, now: number): void => {
  choice.before = before;
  choice.bytes = 0;
  choice.since = now;
};
