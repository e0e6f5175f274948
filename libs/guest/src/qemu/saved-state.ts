/** A device state that QEMU saved with x-ignore-shared, in the words of a stream without it. */
import { deviceSections, MalformedCheckpoint, type OwnBlock, takeApart } from "@godwit/checkpoint/qemu-stream";
import { PAGE_BYTES } from "@godwit/memory";
import * as Bitmap from "@godwit/memory/bitmap";
import { pagesPart, ramStart, SECTION_PAGES_MAX } from "./incoming-stream.ts";

export interface SavedState {
  /** Names all RAMBlocks. */
  readonly start: Uint8Array;
  /** RAMBlocks that lie in no shared file (firmware, tables, video memory). */
  readonly ownBlocks: ReadonlyArray<string>;
  /** Every page of those, zeros as well: whoever takes this has nothing of them. */
  readonly ownPages: ReadonlyArray<Uint8Array>;
  /** Of the devices. */
  readonly sections: Uint8Array;
  /** The same, and the end of the stream. */
  readonly tail: Uint8Array;
}

/** `shared`: the blocks whose pages travel elsewhere, by QEMU's names for them, with the size of their host pages. Throws MalformedCheckpoint. */
export const readSavedState = (stream: Uint8Array, shared: ReadonlyMap<string, number>): SavedState => {
  const { blocks, own, tail } = takeApart(stream, new Set(shared.keys()));
  const sections = deviceSections(tail);
  if (sections === null) throw new MalformedCheckpoint(stream.length, "the stream has no end");
  return {
    start: ramStart(
      blocks.map(({ name, lengthBytes }) => ({ name, lengthBytes, hostPageBytes: shared.get(name) ?? PAGE_BYTES })),
    ),
    ownBlocks: own.map(({ name }) => name),
    ownPages: own.flatMap(partsOf),
    sections,
    tail,
  };
};

const partsOf = ({ name, lengthBytes, present, pages }: OwnBlock): ReadonlyArray<Uint8Array> => {
  const parts: Uint8Array[] = [];
  const pageCount = lengthBytes / PAGE_BYTES;
  let at = 0;
  for (let page = 0; page < pageCount; ) {
    const has = Bitmap.test(present, page);
    let count = 1;
    while (count < SECTION_PAGES_MAX && page + count < pageCount && Bitmap.test(present, page + count) === has) count++;
    const content = has ? pages.subarray(at, at + count * PAGE_BYTES) : null;
    parts.push(pagesPart(name, page, count, content));
    if (has) at += count * PAGE_BYTES;
    page += count;
  }
  return parts;
};
