/**
 * One channel's way to its destination, as a worker sees it: a connection where one can be had, NATS until then and whenever it breaks. Nobody
 * ever waits for it: whatever is to be sent while it is not Open goes by NATS at once.
 *
 *     Idle --wanted--> Asking --offered--> Dialing --opened--> Open
 *                         |                   |                 |
 *                         +---- refused ------+----- ended -----+--> Broken --wanted, after a while--> Asking
 */
import type { LaneOffer } from "@godwit/protocol";

export type Phase =
  | { readonly _tag: "Idle" }
  | { readonly _tag: "Asking" }
  | { readonly _tag: "Dialing" }
  | { readonly _tag: "Open"; readonly since: number }
  /** Not tried again before then, ms. `untold`: why, while no packet had to go by NATS for it. */
  | { readonly _tag: "Broken"; readonly until: number; readonly untold: string | null };

export interface Lane {
  phase: Phase;
  /** Connections in a row that did not last. */
  failures: number;
  /** Why it goes by NATS, as the log was told last: the same is not told again. */
  told: string | null;
  /** When a packet was to be sent last, ms. */
  wantedAt: number;
}

export type Event =
  /** A packet is to be sent. */
  | { readonly _tag: "Wanted" }
  | { readonly _tag: "Offered"; readonly offer: LaneOffer }
  /** The destination offers nothing, or could not be asked. */
  | { readonly _tag: "Refused"; readonly reason: string }
  | { readonly _tag: "Opened"; readonly address: string }
  /** The connection is over, or never came to be. `quietly`: the destination had taken everything that was sent. */
  | { readonly _tag: "Ended"; readonly reason: string; readonly quietly: boolean };

export type Effect =
  | { readonly _tag: "Ask" }
  | { readonly _tag: "Dial"; readonly offer: LaneOffer }
  | { readonly _tag: "Tell"; readonly what: "goes direct" | "goes by NATS"; readonly why: string };

/** Before the first other try, ms; twice as long after each further failure, */
export const AGAIN_MS = 500;
/** and no longer than this, ms: a way that is whole again is used soon, and one that never is costs a request now and then. */
export const AGAIN_MS_MAX = 10_000;
/** More of them wait no longer. */
const FAILURES_MAX = 10;
/** A connection that lasted so long was a good one: what ended it is the first failure, ms. */
export const GOOD_MS = 5_000;
/** Nothing to send for so long: the connection is closed, and the lane forgotten, ms. */
export const IDLE_MS = 30_000;

export const make = (now: number): Lane => ({ phase: { _tag: "Idle" }, failures: 0, told: null, wantedAt: now });

export const isIdle = ({ wantedAt }: Lane, now: number): boolean => now - wantedAt > IDLE_MS;

/** What comes out of turn (an answer that is late, the end of what has ended) changes nothing. */
export const step = (lane: Lane, event: Event, now: number): ReadonlyArray<Effect> => {
  const { phase } = lane;
  switch (event._tag) {
    case "Wanted":
      return wanted(lane, now);
    case "Offered":
      if (phase._tag !== "Asking") return [];
      lane.phase = { _tag: "Dialing" };
      return [{ _tag: "Dial", offer: event.offer }];
    case "Refused":
      // Where there is none, asking again soon is of no use.
      return phase._tag === "Asking" ? broken(lane, event.reason, now + AGAIN_MS_MAX) : [];
    case "Opened":
      if (phase._tag !== "Dialing") return [];
      lane.phase = { _tag: "Open", since: now };
      lane.told = null;
      return [{ _tag: "Tell", what: "goes direct", why: event.address }];
    case "Ended":
      return ended(lane, event, now);
  }
};

const wanted = (lane: Lane, now: number): ReadonlyArray<Effect> => {
  const { phase } = lane;
  lane.wantedAt = now;
  if (phase._tag !== "Idle" && phase._tag !== "Broken") return [];
  const told = phase._tag === "Broken" && phase.untold !== null ? tell(lane, phase.untold) : [];
  if (phase._tag === "Broken" && now < phase.until) {
    lane.phase = { ...phase, untold: null };
    return told;
  }
  lane.phase = { _tag: "Asking" };
  return [...told, { _tag: "Ask" }];
};

const ended = (
  lane: Lane,
  { reason, quietly }: Extract<Event, { _tag: "Ended" }>,
  now: number,
): ReadonlyArray<Effect> => {
  const { phase } = lane;
  if (phase._tag !== "Open" && phase._tag !== "Dialing") return [];
  if (phase._tag === "Open" && now - phase.since >= GOOD_MS) lane.failures = 0;
  const until = now + Math.min(AGAIN_MS_MAX, AGAIN_MS * 2 ** lane.failures);
  lane.failures = Math.min(lane.failures + 1, FAILURES_MAX);
  if (!quietly) return broken(lane, reason, until);
  // So an attempt ends, too. It is news when there is something to send.
  lane.phase = { _tag: "Broken", until, untold: reason };
  return [];
};

const broken = (lane: Lane, why: string, until: number): ReadonlyArray<Effect> => {
  lane.phase = { _tag: "Broken", until, untold: null };
  return tell(lane, why);
};

const tell = (lane: Lane, why: string): ReadonlyArray<Effect> => {
  if (lane.told === why) return [];
  lane.told = why;
  return [{ _tag: "Tell", what: "goes by NATS", why }];
};
