import { readSync, writeSync } from "node:fs";

/** Writes all of `bytes` at `offset`: one call may write a part. Throws what the file system throws; ENOSPC comes after a part. */
export const writeWhole = (fd: number, bytes: Uint8Array, offset: number): void => {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, offset + done);
};

/** Fills `bytes` from `offset` on, or as far as the file goes. Returns how many bytes there were. */
export const readWhole = (fd: number, bytes: Uint8Array, offset: number): number => {
  let done = 0;
  while (done < bytes.length) {
    const count = readSync(fd, bytes, done, bytes.length - done, offset + done);
    if (count === 0) break;
    done += count;
  }
  return done;
};
