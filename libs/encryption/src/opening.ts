/** Opens what arrives: a packet that was sealed for this attempt and purpose, and has not come before. All else is refused, and counted. */
import { type Purpose, subkey } from "./key-schedule.ts";
import { hasCome, makeWindow, note, type ReplayWindow } from "./replay-window.ts";
import { openSealed, readSealedHeader } from "./sealed-packet.ts";
import type { Sealing } from "./sealing-file.ts";

/**
 * Lives of workers that one attempt may have. A worker that dies every second for an hour has fewer; each costs its window of 512 bytes.
 * What comes from one more is refused: to forget an old life would be to let its packets in again.
 */
const SUBKEYS_MAX = 8192;

/** Not opened. `replayed`: it has come before, or is older than the window; `forged`: this attempt's key did not seal these bytes. */
export interface Refused {
  readonly kind: "refused";
  readonly why: "replayed" | "forged";
  readonly reason: string;
  /** The first one for this reason: the log has no use for the others. */
  readonly isNews: boolean;
}

/** How many packets were refused, since the opener was made. */
export interface Refusals {
  replayed: number;
  forged: number;
}

export interface Opener {
  /** Whether packets must be sealed here. When they need not, `open` gives back what it gets. */
  readonly isSealed: boolean;
  /** The packet inside, in memory of its own. */
  readonly open: (bytes: Uint8Array) => Uint8Array | Refused;
  readonly refusals: Readonly<Refusals>;
}

export const isRefused = (opened: Uint8Array | Refused): opened is Refused => !(opened instanceof Uint8Array);

/** Of a host on which nobody says how an attempt's packets are sealed: nothing is let in. */
export const CLOSED: Opener = {
  isSealed: true,
  open: () => ({ kind: "refused", why: "forged", reason: "how it is sealed is not known on this host", isNews: false }),
  refusals: { replayed: 0, forged: 0 },
};

/** Of an attempt whose packets travel as they are. */
const PLAIN: Opener = { isSealed: false, open: (bytes) => bytes, refusals: { replayed: 0, forged: 0 } };

export const makeOpener = (
  sealing: Sealing,
  { migration, epoch, purpose }: { readonly migration: string; readonly epoch: number; readonly purpose: Purpose },
): Opener => {
  if (sealing.cipher === "none") return PLAIN;
  const { key: attemptKey } = sealing;
  const refusals: Refusals = { replayed: 0, forged: 0 };
  const lives = new Map<string, { readonly key: Uint8Array; readonly window: ReplayWindow }>();
  const refuse = (why: Refused["why"], reason: string): Refused => {
    const isNews = refusals[why] === 0;
    refusals[why]++;
    return { kind: "refused", why, reason, isNews };
  };
  const open = (bytes: Uint8Array): Uint8Array | Refused => {
    const header = readSealedHeader(bytes);
    if ("kind" in header) return refuse("forged", header.reason);
    if (header.migration !== migration || header.epoch !== epoch || header.purpose !== purpose)
      return refuse("forged", "it was sealed for another attempt, or for another receiver");
    const name = Buffer.from(header.salt).toString("hex");
    const known = lives.get(name);
    if (known !== undefined && hasCome(known.window, header.counter))
      return refuse("replayed", `packet ${header.counter} of a worker came again, or far too late`);
    if (known === undefined && lives.size >= SUBKEYS_MAX)
      return refuse("forged", `it would be from worker ${SUBKEYS_MAX + 1} of this attempt`);
    const life = known ?? { key: subkey(attemptKey, header.salt, purpose), window: makeWindow() };
    const packet = openSealed(bytes, header.counter, life.key);
    if (packet === null) return refuse("forged", "this attempt's key did not seal it, or it was changed on its way");
    // Only now: a forger must not fill the table, nor move a window on.
    lives.set(name, life);
    note(life.window, header.counter);
    return packet;
  };
  return { isSealed: true, open, refusals };
};
