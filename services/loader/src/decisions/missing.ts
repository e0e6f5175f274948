/** Postcopy at the destination, as far as its migration is concerned: which pages are missing, and that they may never come. */
import type { Failure, OwnershipEntry, OwnershipRecord } from "@godwit/protocol";
import type { Destination, DestinationEffect, DestinationEvent, DestinationPostcopy } from "./destination-state.ts";

/** Whoever shall name the missing pages is asked again, ms: a sender that was restarted does not know them, and its record is taken back. */
export const ASK_AGAIN_MS = 100;

export const isOurs = (destination: Destination, record: OwnershipRecord): boolean =>
  record.epoch === destination.epoch &&
  record.migration === destination.migration &&
  "incarnation" in record &&
  record.incarnation === destination.incarnation;

/**
 * No page has come for a while: the record may say why, in the source's words or in an operator's, or that somebody has taken the guest over
 * for good. What the guest touches will never come then, and it must not run on.
 */
export const lookedAtWhilePaging = (
  destination: Destination,
  { record, revision }: OwnershipEntry,
  emit: (effect: DestinationEffect) => void,
): void => {
  const { postcopy } = destination;
  const why = whyNeverAgain(destination, record);
  if (why === null || postcopy === null || postcopy.isGivenUp) return;
  if (postcopy.isAllThere && why.code !== "postcopy-given-up") return;
  destination.revision = Math.max(destination.revision, revision);
  giveUpPages(destination, why, emit);
};

type Loss = Pick<Failure, "code" | "reason">;

/** The guest is ended, whatever it lacks; its end leads on. */
const giveUpPages = (destination: Destination, why: Loss, emit: (effect: DestinationEffect) => void): void => {
  destination.phase = { _tag: "Paging" };
  destination.postcopy ??= beginPostcopy();
  // Said again when it could not be carried out.
  destination.postcopy.isGivenUp = true;
  destination.failure = { ...why, actor: "loader", side: "destination", step: "bring the guest's pages" };
  emit({ _tag: "Local", step: "give-up-pages" });
  emit({ _tag: "Report" });
};

/** True when the record says that an operator has given the guest up, whatever this side was doing with it: it is being ended then. */
export const isEndedByOperator = (
  destination: Destination,
  record: OwnershipRecord,
  emit: (effect: DestinationEffect) => void,
): boolean => {
  if (record.state !== "destination" || record.givenUp !== true || destination.guestEnded !== null) return false;
  giveUpPages(destination, { code: "postcopy-given-up", reason: record.lost ?? GIVEN_UP }, emit);
  return true;
};

const GIVEN_UP = "an operator has given the guest up";

/** What is not to be run on, though all of it may be here. */
export const isGivenUp = ({ failure }: Destination): boolean => failure?.code === "postcopy-given-up";

const whyNeverAgain = (destination: Destination, record: OwnershipRecord): Loss | null => {
  if (record.epoch > destination.epoch)
    return { code: "fenced", reason: `epoch ${destination.epoch} was fenced off by epoch ${record.epoch}` };
  if (record.state !== "destination" || !isOurs(destination, record) || record.lost === undefined) return null;
  return { code: record.givenUp === true ? "postcopy-given-up" : "postcopy-source-lost", reason: record.lost };
};

export const beginPostcopy = (): DestinationPostcopy => ({
  isKnown: false,
  nextAskAt: 0,
  info: null,
  isAllThere: false,
  isGivenUp: false,
  word: 0,
});

export const missingKnown = (destination: Destination, digest: number, now: number): void => {
  const { postcopy, promise } = destination;
  if (postcopy === null) return;
  if (promise?.manifest.postcopy?.digest === digest) postcopy.isKnown = true;
  // A stranger's answer, or one that was put together while the sender was restarted.
  else postcopy.nextAskAt = now + ASK_AGAIN_MS;
};

export const toldToFetching = (
  { postcopy }: Destination,
  event: Extract<DestinationEvent, { _tag: "PauseFetching" | "RecoverFetching" }>,
  emit: (effect: DestinationEffect) => void,
): void => {
  // An older word that comes late.
  if (postcopy === null || event.word <= postcopy.word) return;
  postcopy.word = event.word;
  emit({ _tag: "SayToFetching", word: event._tag === "PauseFetching" ? "Pause" : "Recover" });
};

export const tuned = (
  destination: Destination,
  { parameters, revision }: Extract<DestinationEvent, { _tag: "Tune" }>,
  emit: (effect: DestinationEffect) => void,
): void => {
  // Said before what is known already.
  if (revision < destination.parametersRevision) return;
  destination.parametersRevision = revision;
  destination.parameters = parameters;
  emit({ _tag: "TuneFetching" });
};
