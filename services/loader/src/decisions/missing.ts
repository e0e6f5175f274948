/** Postcopy at the destination, as far as its migration is concerned: which pages are missing, and that they may never come. */
import type { OwnershipEntry, OwnershipRecord } from "@godwit/protocol";
import type { Destination, DestinationEffect, DestinationEvent, DestinationPostcopy } from "./destination-state.ts";

/** Whoever shall name the missing pages is asked again, ms: a sender that was restarted does not know them, and its record is taken back. */
export const ASK_AGAIN_MS = 100;

export const isOurs = (destination: Destination, record: OwnershipRecord): boolean =>
  record.epoch === destination.epoch &&
  record.migration === destination.migration &&
  "incarnation" in record &&
  record.incarnation === destination.incarnation;

/** No page has come for a while: the source may have said why. What the guest touches will never come then, and it must not run on. */
export const lookedAtWhilePaging = (
  destination: Destination,
  { record, revision }: OwnershipEntry,
  emit: (effect: DestinationEffect) => void,
): void => {
  if (record.state !== "destination" || !isOurs(destination, record) || record.lost === undefined) return;
  const { postcopy } = destination;
  if (postcopy === null || postcopy.isAllThere || postcopy.isGivenUp) return;
  // Said again when it could not be carried out.
  postcopy.isGivenUp = true;
  destination.revision = Math.max(destination.revision, revision);
  destination.failure = {
    code: "postcopy-source-lost",
    actor: "loader",
    side: "destination",
    step: "bring the guest's pages",
    reason: record.lost,
  };
  emit({ _tag: "Local", step: "give-up-pages" });
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
