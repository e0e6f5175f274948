import type { DirtyTracker } from "../dirty-tracker.ts";
import { PAGE_BYTES, pageCount, type RamBlock } from "../ram-block.ts";
import { openRamReader, type RamReader } from "../ram-file.ts";

/** What a destination would hold: the pages that were read from the tracker's blocks, and nothing else. */
export interface Copy {
  /** Reads a run that the tracker has reported. */
  readonly take: (block: number, firstPage: number, pages: number) => void;
  /** Names of blocks and numbers of pages in which this copy is not what the guest's memory is now. */
  readonly wrongPages: () => ReadonlyArray<string>;
  readonly close: () => void;
}

export const makeCopy = (tracker: DirtyTracker, guest: ReadonlyArray<RamBlock>): Copy => {
  const readers = tracker.readFrom.map(openRamReader);
  const guestReaders = guest.map(openRamReader);
  // Not zeros: a page that is never reported must show.
  const contents = guest.map((block) => Buffer.alloc(block.lengthBytes, 0xa5));
  const take: Copy["take"] = (block, firstPage, pages) => {
    readers[block]!.readPages(firstPage, pages, contents[block]!, firstPage * PAGE_BYTES);
  };
  const wrongPages = () => guest.flatMap((block, index) => differences(block, guestReaders[index]!, contents[index]!));
  const close = () => {
    for (const reader of [...readers, ...guestReaders]) reader.close();
  };
  return { take, wrongPages, close };
};

const differences = (block: RamBlock, reader: RamReader, content: Buffer): ReadonlyArray<string> => {
  const now = Buffer.alloc(block.lengthBytes);
  reader.readPages(0, pageCount(block), now, 0);
  const wrong: string[] = [];
  for (let page = 0; page < pageCount(block); page++) {
    const at = page * PAGE_BYTES;
    if (now.compare(content, at, at + PAGE_BYTES, at, at + PAGE_BYTES) !== 0) wrong.push(`${block.name}:${page}`);
  }
  return wrong;
};
