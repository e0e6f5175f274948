/**
 * Which page of a running guest's memory comes next, when pages are still missing: those that a vCPU waits for, in the order in which
 * they were touched, then what lies around them, since programs go on where they are, then the rest from front to back. Pure.
 *
 * Invariant: each page that has content is handed out exactly once, unless it was handed back. Those that have none are zeros, and are handed
 * out only to who waits for them: when nothing is left, whatever is still missing may become zeros by itself. What was handed out is placed or
 * handed back before more is asked for.
 */
import * as Bitmap from "@godwit/memory/bitmap";

/** Pages handed out at once, 256 KiB: a fault that comes meanwhile waits for all of them, about a third of a ms. */
export const CHUNK_PAGES_MAX = 64;
/** What is taken for the surroundings of a touched page, pages before and behind it: 128 KiB and 1 MiB. */
const NEAR = { before: 32, behind: 256 };
/** Places whose surroundings are remembered: more vCPUs than that touch so much that front to back is as good. */
const PLACES_MAX = 16;

export interface PagedBlock {
  readonly pages: number;
  /** The pages that have content. */
  readonly present: Bitmap.Bitmap;
}

interface Touch {
  readonly block: number;
  readonly page: number;
  /** When the page was asked for, ms. */
  readonly since: number;
}

export interface Pager {
  readonly blocks: ReadonlyArray<PagedBlock>;
  /** Of each block, the pages with content that were not handed out. */
  readonly left: ReadonlyArray<Bitmap.Bitmap>;
  leftPages: number;
  /** Touched, in order; those before `answered` have their answer. */
  touches: Touch[];
  answered: number;
  /** Where guests touched last, the latest at the end. */
  places: Touch[];
  /** Before this place nothing is left. */
  front: { block: number; page: number };
}

export type PagerWork =
  | {
      readonly _tag: "Copy";
      readonly block: number;
      readonly first: number;
      readonly pages: number;
      /** When a vCPU began to wait for it; null: nobody asked. */
      readonly since: number | null;
    }
  /** A touched page that has no content, or was handed out and placed before: zeros are placed only where nothing is. */
  | { readonly _tag: "Zero"; readonly block: number; readonly page: number; readonly since: number };

export const makePager = (blocks: ReadonlyArray<PagedBlock>): Pager => {
  const left = blocks.map(({ present, pages }) => ({ words: present.words.slice(), pageCount: pages }));
  return {
    blocks,
    left,
    leftPages: left.reduce((sum, bitmap) => sum + Bitmap.count(bitmap), 0),
    touches: [],
    answered: 0,
    places: [],
    front: { block: 0, page: 0 },
  };
};

/** Pages that an earlier life has placed. */
export const alreadyThere = (pager: Pager, block: number, first: number, pages: number): void => {
  const before = Bitmap.count(pager.left[block]!);
  Bitmap.clearRange(pager.left[block]!, first, pages);
  pager.leftPages -= before - Bitmap.count(pager.left[block]!);
};

/** A vCPU waits for a page. Throws RangeError for one that no block has. */
export const touch = (pager: Pager, block: number, page: number, since: number): void => {
  const pages = pager.blocks[block]?.pages ?? 0;
  if (page < 0 || page >= pages) throw new RangeError(`page ${page} of block ${block}, which has ${pages}`);
  pager.touches.push({ block, page, since });
};

/** What to do next; null: nobody waits, and nothing is left (or `rest` is "later", and what is left waits its turn). */
export const nextWork = (pager: Pager, rest: "now" | "later"): PagerWork | null =>
  answerTouch(pager) ?? (rest === "now" && pager.leftPages > 0 ? (near(pager) ?? frontToBack(pager)) : null);

/** The last work came to nothing: it is the next, or among the next. */
export const handBack = (pager: Pager, work: PagerWork): void => {
  const page = work._tag === "Copy" ? work.first : work.page;
  if (work._tag === "Copy") {
    Bitmap.setRange(pager.left[work.block]!, work.first, work.pages);
    pager.leftPages += work.pages;
    const { front } = pager;
    if (work.block < front.block || (work.block === front.block && page < front.page))
      pager.front = { block: work.block, page };
  }
  if (work.since !== null) pager.touches.splice(pager.answered, 0, { block: work.block, page, since: work.since });
};

const answerTouch = (pager: Pager): PagerWork | null => {
  const { touches, left } = pager;
  const next = touches[pager.answered];
  if (next === undefined) {
    pager.touches = [];
    pager.answered = 0;
    return null;
  }
  pager.answered++;
  pager.places.push(next);
  if (pager.places.length > PLACES_MAX) pager.places.shift();
  const { block, page, since } = next;
  if (Bitmap.test(left[block]!, page)) return handOut(pager, block, page, 1, since);
  return { _tag: "Zero", block, page, since };
};

const handOut = (pager: Pager, block: number, first: number, pages: number, since: number | null): PagerWork => {
  Bitmap.clearRange(pager.left[block]!, first, pages);
  pager.leftPages -= pages;
  return { _tag: "Copy", block, first, pages, since };
};

/** What is left around the latest place; a place with nothing left around it is forgotten. */
const near = (pager: Pager): PagerWork | null => {
  for (let place = pager.places.at(-1); place !== undefined; place = pager.places.at(-1)) {
    const { block, page } = place;
    const left = pager.left[block]!;
    const run = within(left, page, page + NEAR.behind) ?? within(left, Math.max(0, page - NEAR.before), page);
    if (run !== null) return handOut(pager, block, run.first, run.count, null);
    pager.places.pop();
  }
  return null;
};

const within = (left: Bitmap.Bitmap, from: number, end: number): Bitmap.PageRun | null => {
  const run = Bitmap.nextRun(left, from, CHUNK_PAGES_MAX);
  return run === null || run.first >= end ? null : run;
};

const frontToBack = (pager: Pager): PagerWork | null => {
  const { front, left } = pager;
  for (; front.block < left.length; front.block++, front.page = 0) {
    const run = Bitmap.nextRun(left[front.block]!, front.page, CHUNK_PAGES_MAX);
    if (run === null) continue;
    front.page = run.first + run.count;
    return handOut(pager, front.block, run.first, run.count, null);
  }
  return null;
};
