/** A guest whose pages are packed, and a destination that takes them. */
import { PAGE_BYTES, type RamBlock } from "@godwit/memory";
import type { Offer, PagesItem } from "@godwit/protocol";
import fc from "fast-check";
// The other end of the channel: what it makes of a packet is what packing is for.
import { openReceiver } from "../../loader/src/applying.ts";
import { step } from "../../loader/src/decisions/destination.ts";
import { makeDestination } from "../../loader/src/decisions/destination-state.ts";
import * as Fence from "../../loader/src/decisions/fence.ts";

export const MIGRATION = "0123456789abcdef";
export const EPOCH = 3;
export const BLOCK_PAGES = 160;
/** The block begins behind a page of somebody else's, and ends before one. */
export const FILE_OFFSET = PAGE_BYTES;
export const FILE_BYTES = (BLOCK_PAGES + 2) * PAGE_BYTES;

export const blockIn = (path: string): RamBlock => ({
  name: "ram",
  lengthBytes: BLOCK_PAGES * PAGE_BYTES,
  hostPageBytes: PAGE_BYTES,
  path,
  fileOffset: FILE_OFFSET,
});
/** What every item here has. */
export const shared = {
  migration: MIGRATION,
  epoch: EPOCH,
  round: 1,
  channel: 0,
  channelEpoch: 1,
  compression: "none",
  level: 1,
  deadline: 0,
  lane: "nats",
} as const;
export const pagesItem = (change: Partial<PagesItem>): PagesItem => ({
  kind: "pages",
  ...shared,
  item: 0,
  block: 0,
  fileOffset: FILE_OFFSET,
  zeroPages: "worker",
  runs: Uint32Array.of(0, 1),
  xbzrle: null,
  ...change,
});
/** A page that is zero, that holds one byte somewhere, that compresses well, or that does not. */
export type Content = { readonly kind: "zero" | "one byte" | "text" | "noise"; readonly seed: number };
export const content: fc.Arbitrary<Content> = fc.record({
  kind: fc.constantFrom("zero", "zero", "one byte", "text", "noise"),
  seed: fc.nat(PAGE_BYTES - 1),
});
/** Fills page `page` of `memory`. */
export const fillPage = (memory: Buffer, page: number, { kind, seed }: Content): void => {
  const bytes = memory.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
  bytes.fill(0);
  if (kind === "one byte") bytes[seed] = 1 + (seed % 255);
  if (kind === "text") for (let i = 0; i < PAGE_BYTES; i++) bytes[i] = 32 + (((i >> 4) + seed) % 64);
  if (kind !== "noise") return;
  let state = seed + 1;
  for (let i = 0; i < PAGE_BYTES; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
};
/** The file of a guest with these pages, and others around them. */
export const guestMemory = (pages: ReadonlyArray<Content>): Buffer => {
  const memory = Buffer.alloc(FILE_BYTES, 0x5a);
  for (const [index, page] of pages.entries()) fillPage(memory, index + 1, page);
  return memory;
};

/** A destination whose memory is the file at `path`, and which gathers device state beside it. */
export const receiving = (path: string) => {
  const receiver = openReceiver([blockIn(path)], `${path}-incoming`);
  const offer: Offer = {
    version: 1,
    driver: "builtin",
    machine: "m",
    hypervisor: "h",
    running: true,
    blocks: [{ name: "ram", "length-bytes": BLOCK_PAGES * PAGE_BYTES, "page-size": PAGE_BYTES }],
  };
  const destination = makeDestination({
    migration: MIGRATION,
    guest: "vm",
    node: "b",
    source: "a",
    incarnation: "f".repeat(16),
    epoch: EPOCH,
    authority: { term: 1, coordinator: null },
    offer,
    now: 0,
  });
  step(destination, { _tag: "Prepared", words: new Uint32Array(Fence.wordsOf(BLOCK_PAGES)), loaded: false }, 0);
  return { receiver, destination };
};
