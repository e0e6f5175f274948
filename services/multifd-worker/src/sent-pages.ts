/** Capability `xbzrle`: the file in which the workers of a host keep what they send of pages, a page for each slot. */
import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { PAGE_BYTES } from "@godwit/memory";
import type { SentPages } from "./kernel/shorten.ts";

/**
 * Opens what the RAM sender has made. A slot beyond its end is refused, also for writing: a forged item must not make the file longer.
 * What another worker writes at the same time may be read in part. That is no harm: the destination applies a delta only to the very
 * page that it was made for.
 */
export const openSentPages = (path: string): SentPages & { readonly close: () => void } => {
  const fd = openSync(path, "r+");
  const slots = Math.floor(fstatSync(fd).size / PAGE_BYTES);
  const place = (slot: number): number => {
    if (slot >= slots) throw new RangeError(`slot ${slot} of ${slots}`);
    return slot * PAGE_BYTES;
  };
  return {
    read: (slot, target) => {
      const from = place(slot);
      for (let done = 0; done < PAGE_BYTES; ) {
        const count = readSync(fd, target, done, PAGE_BYTES - done, from + done);
        if (count === 0) throw new Error(`${path} ends in slot ${slot}`);
        done += count;
      }
    },
    write: (slot, source, at) => {
      const to = place(slot);
      for (let done = 0; done < PAGE_BYTES; ) done += writeSync(fd, source, at + done, PAGE_BYTES - done, to + done);
    },
    close: () => closeSync(fd),
  };
};
