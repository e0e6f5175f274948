/**
 * A thread of the content tracker: takes chunks until none is left, compares each with its shadow, brings the shadow up to
 * date, and reports what differed. It imports neither effect nor Schema: those would cost a quarter of a second for each thread.
 *
 * Invariants:
 * - A page of the shadow changes only here, and always by being reported afterwards: so what a reader of the shadow has
 *   seen after the last report is what the shadow holds.
 * - Guest memory is read once for each scan. What was compared is what is stored. A page that was read while it was being
 *   written may be a mixture that the guest never had; then the guest differs from the shadow at the next sync.
 */
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { mapFile, nextData, punchHole } from "@godwit/host";
import * as Bitmap from "../bitmap.ts";
import { findDifferences } from "../kernel/page-difference.ts";
import { asBuffer, isZeroPage } from "../kernel/zero-page.ts";
import { PAGE_BYTES } from "../ram-block.ts";
import {
  BATCH_BYTES,
  BATCH_PAGES,
  CHUNK_PAGES,
  type Chunk,
  CONTROL,
  type ContentOrder,
  type ContentReport,
  type ContentWorkerData,
  REPORTS_WAITING_MAX,
  type ShadowedBlock,
} from "./content-messages.ts";

const port = parentPort!;
const { blocks, chunks, control } = workerData as ContentWorkerData;
const fresh = Buffer.alloc(BATCH_BYTES);
const differing = new Uint32Array(BATCH_PAGES);
/** Pairs of (first page, pages) of one chunk. */
const runs = new Uint32Array(CHUNK_PAGES + 1);

/** A block as this thread has it open. */
interface OpenBlock extends ShadowedBlock {
  readonly guestFd: number;
  readonly shadowFd: number;
  /** The shadow through a mapping: comparing there saves the copy that reading it would make (150 ms for each GiB, not 200). */
  readonly shadow: Buffer;
  /** The kernel keeps the memory of a mapped file until then, also once the file is removed and this thread has ended. */
  readonly unmap: () => void;
}

const openBlock = (shadowed: ShadowedBlock): OpenBlock => {
  const { block, shadowPath } = shadowed;
  const guestFd = openSync(block.path, "r");
  const shadowFd = openSync(shadowPath, "r+");
  const mapping = mapFile(shadowFd, { offsetBytes: 0, lengthBytes: block.lengthBytes }, "read-only");
  return { ...shadowed, guestFd, shadowFd, shadow: asBuffer(mapping.bytes), unmap: mapping.unmap };
};

/** Reads pages of the guest into `fresh`. */
const readFresh = (open: OpenBlock, firstPage: number, pages: number): void => {
  const position = open.block.fileOffset + firstPage * PAGE_BYTES;
  for (let done = 0; done < pages * PAGE_BYTES; ) {
    const count = readSync(open.guestFd, fresh, done, pages * PAGE_BYTES - done, position + done);
    if (count === 0) throw new Error(`${open.block.path} ends before block ${open.block.name} does`);
    done += count;
  }
};

/** Stores `pages` equal-natured pages of `fresh` from page `from` in the shadow: as a hole if they are zero, for zero pages take no memory. */
const store = (open: OpenBlock, firstPage: number, from: number, pages: number, zero: boolean): void => {
  const at = firstPage + from;
  if (zero) {
    punchHole(open.shadowFd, at * PAGE_BYTES, pages * PAGE_BYTES);
    Bitmap.clearRange(open.present, at, pages);
    return;
  }
  // A store through a mapping would end this process when the file system is full; a write fails instead.
  for (let done = 0; done < pages * PAGE_BYTES; ) {
    const offset = from * PAGE_BYTES + done;
    done += writeSync(open.shadowFd, fresh, offset, pages * PAGE_BYTES - done, at * PAGE_BYTES + done);
  }
  Bitmap.setRange(open.present, at, pages);
};

/** Brings the shadow up to date with one batch and appends its differing pages to `runs`. Returns the new number of runs. */
const scanBatch = (open: OpenBlock, firstPage: number, pages: number, runCount: number): number => {
  readFresh(open, firstPage, pages);
  const count = findDifferences(fresh, firstPage, pages, open.shadow, open.present, differing);
  let last = runCount;
  for (let index = 0; index < count; ) {
    const from = differing[index]!;
    const zero = isZeroPage(fresh, from * PAGE_BYTES);
    let length = 1;
    while (
      index + length < count &&
      differing[index + length] === from + length &&
      isZeroPage(fresh, (from + length) * PAGE_BYTES) === zero
    ) {
      length++;
    }
    store(open, firstPage, from, length, zero);
    last = appendRun(last, firstPage + from, length);
    index += length;
  }
  return last;
};

const appendRun = (runCount: number, first: number, pages: number): number => {
  const previous = (runCount - 1) * 2;
  if (runCount > 0 && runs[previous]! + runs[previous + 1]! === first) {
    runs[previous + 1]! += pages;
    return runCount;
  }
  runs[runCount * 2] = first;
  runs[runCount * 2 + 1] = pages;
  return runCount + 1;
};

/** Scans one chunk into `runs`; returns the number of runs. */
const scanChunk = (open: OpenBlock, chunk: Chunk): number => {
  const end = chunk.firstPage + chunk.pages;
  let runCount = 0;
  // Where the guest's file has data next: what lies before it are holes, which need no reading where the shadow is empty, too.
  let dataPage = -1;
  for (let page = chunk.firstPage; page < end; page += BATCH_PAGES) {
    const pages = Math.min(BATCH_PAGES, end - page);
    if (dataPage < page) {
      const data = nextData(open.guestFd, open.block.fileOffset + page * PAGE_BYTES);
      dataPage = data === null ? Number.POSITIVE_INFINITY : Math.floor((data - open.block.fileOffset) / PAGE_BYTES);
    }
    const empty = dataPage >= page + pages && Bitmap.isClearRange(open.present, page, pages);
    if (!empty) runCount = scanBatch(open, page, pages, runCount);
  }
  return runCount;
};

const send = (report: ContentReport): void => {
  if (report._tag === "Runs") port.postMessage(report, [report.runs.buffer as ArrayBuffer]);
  else port.postMessage(report);
};

/** Waits while the main thread is behind. */
const sendRuns = (block: number, pairs: Uint32Array): void => {
  for (;;) {
    const waiting = Atomics.load(control, CONTROL.REPORTS_WAITING);
    if (waiting < REPORTS_WAITING_MAX || Atomics.load(control, CONTROL.STOP) !== 0) break;
    Atomics.wait(control, CONTROL.REPORTS_WAITING, waiting);
  }
  Atomics.add(control, CONTROL.REPORTS_WAITING, 1);
  send({ _tag: "Runs", block, runs: pairs });
};

const opened: OpenBlock[] = [];
const end = (): void => {
  for (const { guestFd, shadowFd, unmap } of opened.splice(0)) {
    unmap();
    closeSync(guestFd);
    closeSync(shadowFd);
  }
  port.close();
};

try {
  for (const block of blocks) opened.push(openBlock(block));
} catch (error) {
  end();
  throw error;
}

port.on("message", (order: ContentOrder) => {
  if (order === "end") return end();
  try {
    while (Atomics.load(control, CONTROL.STOP) === 0) {
      const chunk = chunks[Atomics.add(control, CONTROL.NEXT_CHUNK, 1)];
      if (chunk === undefined) break;
      const runCount = scanChunk(opened[chunk.block]!, chunk);
      if (order.demand === "everything") sendRuns(chunk.block, Uint32Array.of(chunk.firstPage, chunk.pages));
      else if (runCount > 0) sendRuns(chunk.block, runs.slice(0, runCount * 2));
    }
  } catch (error) {
    send({ _tag: "Failed", reason: error instanceof Error ? error.message : String(error) });
  }
  send({ _tag: "Done" });
});
