/** Protections that a run can leave out, to show that the invariants notice. */
export const BREAKAGES = [
  "no round fence",
  "no epoch check",
  "acknowledge before applying",
  "clear the dirty bitmap late",
  "start without compare-and-set",
  "an unknown answer is taken for a yes",
  "a lost reply is taken for a no",
  "resume by a timer",
  "a restarted loader goes on with memory that is gone",
  "device slices in the order of arrival",
  "no verification",
  "owed pages go while the last sync goes on",
  "a delta is applied to whatever is there",
  "old pages are kept in a postcopy",
  "a postcopy's source lets go at the commit",
  "a destination goes on waiting for pages that were given up",
] as const;
export type Breakage = (typeof BREAKAGES)[number];
