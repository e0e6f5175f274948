/** Reads page contents of a checkpoint, which may lie on a slow disk. */
import { read } from "node:fs";
import { promisify } from "node:util";
import { PAGE_BYTES } from "@godwit/host";
import type { BlockPlace } from "./layout.ts";
import { MalformedCheckpoint } from "./malformed.ts";

const readSome = promisify(read);

/**
 * Pages of one stored block, `target` bytes long, from page `first` on. Rejects with MalformedCheckpoint when the file was cut meanwhile, and
 * with what the file system says. A slow disk holds up nobody but who waits for it.
 */
export const readStoredPages = async (
  fd: number,
  block: Pick<BlockPlace, "name" | "pagesOffset">,
  first: number,
  target: Uint8Array,
): Promise<void> => {
  const start = block.pagesOffset + first * PAGE_BYTES;
  for (let done = 0; done < target.length; ) {
    const { bytesRead } = await readSome(fd, target, done, target.length - done, start + done);
    if (bytesRead === 0) throw new MalformedCheckpoint(start + done, `the file ends within RAMBlock ${block.name}`);
    done += bytesRead;
  }
};
