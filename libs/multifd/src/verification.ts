/**
 * Capability `verify`: which pages have been compared with the destination since they were last found dirty. Every page is
 * compared before the commit, most of them while the guest still runs, so that the stop pays only for the last ones.
 *
 *     found dirty --> unverified --(its round is applied)--> check --equal--> verified
 *                         ^                                    |
 *                         |                                differs while the guest runs: suspect until the next sync
 *                         +--- found by that sync: it was written, no harm
 *                         +--- not found by it: damaged on the way; it is sent again, and counted
 *
 * With the guest stopped there is no doubt: what differs is damaged, and is repaired at once. One bit per page and list.
 */
import * as Bitmap from "@godwit/memory/bitmap";
import * as Cuts from "./cuts.ts";

export interface BlockCount {
  pagesChecked: number;
  pagesDamaged: number;
}

export interface Verification {
  readonly unverified: ReadonlyArray<Bitmap.Bitmap>;
  /** Bits set in `unverified`. */
  pages: number;
  readonly suspect: ReadonlyArray<Bitmap.Bitmap>;
  suspects: number;
  /** Where the next check of this round begins, and how many unverified pages lie from there on. */
  at: Cuts.Place;
  pagesAhead: number;
  readonly blocks: ReadonlyArray<BlockCount>;
}

export const make = (pagesOfBlocks: ReadonlyArray<number>): Verification => ({
  unverified: pagesOfBlocks.map((pages) => Bitmap.make(pages)),
  pages: 0,
  suspect: pagesOfBlocks.map((pages) => Bitmap.make(pages)),
  suspects: 0,
  at: Cuts.START,
  pagesAhead: 0,
  blocks: pagesOfBlocks.map(() => ({ pagesChecked: 0, pagesDamaged: 0 })),
});

export const beginRound = (verification: Verification): void => {
  verification.at = Cuts.START;
  verification.pagesAhead = verification.pages;
};

/** Pages that the guest wrote, or that must be sent for another reason. */
export const found = (verification: Verification, block: number, firstPage: number, pages: number): void => {
  const added = Bitmap.setRange(verification.unverified[block]!, firstPage, pages);
  verification.pages += added;
  verification.pagesAhead += added;
  if (verification.suspects === 0) return;
  const suspect = verification.suspect[block]!;
  const before = Bitmap.setRange(suspect, firstPage, pages);
  Bitmap.clearRange(suspect, firstPage, pages);
  verification.suspects -= pages - before;
};

/** Forgets what was not compared, and what was suspected: those pages are sent in another way. */
export const forget = (verification: Verification): void => {
  for (const bitmap of [...verification.unverified, ...verification.suspect]) Bitmap.clearAll(bitmap);
  verification.pages = 0;
  verification.pagesAhead = 0;
  verification.suspects = 0;
};

/** Cuts the next check of this round, or null when all were cut. */
export const take = (verification: Verification, pagesMax: number): Cuts.Cut | null => {
  if (verification.pagesAhead === 0) return null;
  const next = Cuts.next(verification.unverified, pagesMax, verification.at, Cuts.END);
  if (next === null) throw new Error(`${verification.pagesAhead} unverified pages are not in the bitmap`);
  verification.at = next.after;
  verification.pagesAhead -= next.cut.pages;
  return next.cut;
};

/** Checks that this round makes of what is unverified now. */
export const checksOfRound = (verification: Verification, pagesMax: number): number =>
  Cuts.count(verification.unverified, pagesMax, Cuts.START, Cuts.END);

/** The destination holds what the source held when the check was made. */
export const equal = (verification: Verification, cut: Cuts.Cut): void => {
  const bitmap = verification.unverified[cut.block]!;
  for (let r = 0; r < cut.runs.length; r += 2) {
    const missing = Bitmap.setRange(bitmap, cut.runs[r]!, cut.runs[r + 1]!);
    Bitmap.clearRange(bitmap, cut.runs[r]!, cut.runs[r + 1]!);
    verification.pages -= cut.runs[r + 1]! - missing;
  }
  verification.blocks[cut.block]!.pagesChecked += cut.pages;
};

/** The guest runs, and may have written these pages since they were sent: the next sync tells. */
export const suspected = (verification: Verification, differing: Cuts.Cut): void => {
  for (let r = 0; r < differing.runs.length; r += 2)
    verification.suspects += Bitmap.setRange(
      verification.suspect[differing.block]!,
      differing.runs[r]!,
      differing.runs[r + 1]!,
    );
};

export const damaged = (verification: Verification, block: number, pages: number): void => {
  verification.blocks[block]!.pagesDamaged += pages;
};

/** After a sync: suspects that it did not find were damaged on the way. They are named to `sendAgain`, and suspects no more. */
export const settleSuspects = (
  verification: Verification,
  sendAgain: (block: number, firstPage: number, pages: number) => void,
): void => {
  if (verification.suspects === 0) return;
  verification.suspect.forEach((bitmap, block) => {
    for (let run = Bitmap.nextRun(bitmap, 0, bitmap.pageCount); run !== null; ) {
      const { first, count } = run;
      Bitmap.clearRange(bitmap, first, count);
      damaged(verification, block, count);
      sendAgain(block, first, count);
      run = first + count < bitmap.pageCount ? Bitmap.nextRun(bitmap, first + count, bitmap.pageCount) : null;
    }
  });
  verification.suspects = 0;
};
