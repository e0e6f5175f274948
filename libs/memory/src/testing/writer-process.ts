/** The program of a writer process: maps a file and writes into it on command, as a guest would. */
import { openSync } from "node:fs";
import { armOwnMemory, mapFile } from "@godwit/host";
import { PAGE_BYTES } from "../ram-block.ts";
import type { WriterAnswer, WriterOrder, WriterSetup } from "./writer-messages.ts";

/**
 * A race hammers some pages for a millisecond, then leaves them alone until it comes round again: a tracker that loses the last
 * write to a page must not be saved by the next one.
 */
const BURST_MS = 1;
const BURST_PAGES = 16;
/** Words of a page that a race counts in: at its beginning, middle and end, so that a torn copy shows. */
const RACE_WORDS = [0, 511, 512, 1023];
const PAGE_WORDS = PAGE_BYTES / Uint32Array.BYTES_PER_ELEMENT;

const { path, lengthBytes, userfaultfd } = JSON.parse(process.argv[2]!) as WriterSetup;
const mapping = mapFile(openSync(path, "r+"), { offsetBytes: 0, lengthBytes }, "writable");
if (userfaultfd) armOwnMemory([mapping]);
const words = new Uint32Array(mapping.bytes.buffer);
const pageCount = lengthBytes / PAGE_BYTES;

let racing = false;
let racePage = 0;
let writes = 0;

const answer = (message: WriterAnswer) => process.send!(message);

const burst = () => {
  if (!racing) return;
  const last = Math.min(racePage + BURST_PAGES, pageCount);
  const end = performance.now() + BURST_MS;
  while (performance.now() < end) {
    for (let page = racePage; page < last; page++) {
      for (const word of RACE_WORDS) words[page * PAGE_WORDS + word]!++;
    }
    writes += (last - racePage) * RACE_WORDS.length;
  }
  racePage = last % pageCount;
  // Orders get their turn between two bursts.
  setImmediate(burst);
};

const carryOut = (order: WriterOrder): void => {
  switch (order._tag) {
    case "Fill":
      mapping.bytes.fill(order.value, order.firstPage * PAGE_BYTES, (order.firstPage + order.pages) * PAGE_BYTES);
      return;
    case "Scatter":
      for (let page = 0; page < pageCount; page += order.stride) {
        mapping.bytes.fill(order.value, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      }
      return;
    case "Race":
      racing = true;
      setImmediate(burst);
      return;
    case "Stop":
      racing = false;
      return;
  }
};

process.on("message", (order: WriterOrder) => {
  carryOut(order);
  answer({ _tag: "Done", writes });
});
// The test that started it has ended.
process.on("disconnect", () => process.exit());
answer({ _tag: "Ready", address: mapping.address });
