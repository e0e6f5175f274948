/** Reads page contents of a checkpoint. Apart from what reads the rest: a thread that only copies pages starts without loading that. */
import { PAGE_BYTES, readWhole } from "@godwit/host";
import type { BlockPlace } from "./layout.ts";
import { MalformedCheckpoint } from "./malformed.ts";

/** Pages of one stored block, `target` bytes long, from page `first` on. Throws MalformedCheckpoint when the file was cut meanwhile. */
export const readStoredPages = (
  fd: number,
  block: Pick<BlockPlace, "name" | "pagesOffset">,
  first: number,
  target: Uint8Array,
): void => {
  const start = block.pagesOffset + first * PAGE_BYTES;
  const count = readWhole(fd, target, start);
  if (count < target.length)
    throw new MalformedCheckpoint(start + count, `the file ends within RAMBlock ${block.name}`);
};
