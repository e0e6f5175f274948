/**
 * The thread of `openPagingThread`: places the pages of one guest at a time, those that it waits for before all others. It reads and
 * waits as a thread of its own may, so that neither a slow disk nor a busy loader makes the other one late.
 */
import { type MessagePort, parentPort } from "node:worker_threads";
import { crc32 } from "node:zlib";
import { readStoredPages } from "@godwit/checkpoint/stored-pages";
import {
  copyPages,
  HostError,
  makeFaultReader,
  nextData,
  nextHole,
  PAGE_BYTES,
  waitForFaults,
  wakePages,
  zeroPages,
} from "@godwit/host";
import * as Pace from "@godwit/multifd/pace";
import { addLatency, makeLatencies, summaryOf } from "./decisions/latencies.ts";
import {
  alreadyThere,
  CHUNK_PAGES_MAX,
  makePager,
  nextWork,
  type Pager,
  type PagerWork,
  touch,
} from "./decisions/pager.ts";
import { type PagingEnd, type PagingJob, type PagingReport, STOP } from "./paging-messages.ts";

/** How often is looked whether to stop, and at least told how far it is, ms. */
const LOOK_MS = 50;

const port = parentPort as MessagePort;

/** A page that is not what was saved. */
class DamagedPage extends Error {}

interface Run {
  readonly job: PagingJob;
  readonly pager: Pager;
  /** Reused for each chunk. */
  readonly buffer: Uint8Array;
  readBytes: number;
}

const page = (run: Run, block: number, number: number): bigint =>
  run.job.blocks[block]!.address + BigInt(number * PAGE_BYTES);

const perform = (run: Run, work: PagerWork): void => {
  const { uffd } = run.job;
  switch (work._tag) {
    case "Copy":
      return copy(run, work);
    case "Zero":
      zeroPages(uffd, page(run, work.block, work.page), 1);
      return;
    case "Wake":
      return wakePages(uffd, { address: page(run, work.block, work.page), lengthBytes: PAGE_BYTES });
  }
};

const copy = (run: Run, { block, first, pages }: Extract<PagerWork, { _tag: "Copy" }>): void => {
  const { job } = run;
  const source = job.blocks[block]!;
  const bytes = run.buffer.subarray(0, pages * PAGE_BYTES);
  readStoredPages(job.checkpoint, source, first, bytes);
  for (let n = 0; source.sums !== null && n < pages; n++) {
    if (crc32(bytes.subarray(n * PAGE_BYTES, (n + 1) * PAGE_BYTES)) === source.sums[first + n]) continue;
    const where = `page ${first + n} of RAMBlock ${source.name} (byte ${(first + n) * PAGE_BYTES})`;
    throw new DamagedPage(`${where} is damaged: its checksum is not the one that was saved`);
  }
  copyPages(job.uffd, page(run, block, first), bytes);
  run.readBytes += bytes.length;
};

/** What the guest's memory file has data for was placed by an earlier life: a page is in the file only once its bytes are. */
const skipPlaced = ({ job, pager }: Run): void => {
  job.blocks.forEach(({ ramFd, ramOffset, pages }, block) => {
    const end = ramOffset + pages * PAGE_BYTES;
    for (let at = nextData(ramFd, ramOffset); at !== null && at < end; ) {
      const hole = Math.min(end, nextHole(ramFd, at));
      alreadyThere(pager, block, (at - ramOffset) / PAGE_BYTES, (hole - at) / PAGE_BYTES);
      at = nextData(ramFd, hole);
    }
  });
};

const blockAt = ({ blocks }: PagingJob, address: bigint): { readonly block: number; readonly page: number } => {
  const block = blocks.findIndex(
    (one) => address >= one.address && address < one.address + BigInt(one.pages * PAGE_BYTES),
  );
  if (block < 0) throw new Error(`a fault at address ${address}, which is in no RAMBlock`);
  return { block, page: Number(address - blocks[block]!.address) / PAGE_BYTES };
};

/** Returns once all pages are there, or it was told to stop. */
const placeAll = (run: Run): "all" | "stopped" => {
  const { job, pager } = run;
  const stop = new Int32Array(job.stop);
  const faults = makeFaultReader(job.uffd);
  const latencies = makeLatencies();
  const pace = Pace.make(job.restBytesPerSecond, performance.now());
  // Of messages that a dead predecessor took nobody speaks again; whoever still waits raises his fault anew.
  for (const { address, pages } of job.blocks) wakePages(job.uffd, { address, lengthBytes: pages * PAGE_BYTES });
  skipPlaced(run);
  // A fault that is found now was not there then: it has waited for at most that long.
  let lookedAt = performance.now();
  let toldAt = Number.NEGATIVE_INFINITY;
  const tell = (now: number): void => {
    toldAt = now;
    const { count, p50, p99, max } = summaryOf(latencies);
    const report: PagingReport = {
      _tag: "Progress",
      readBytes: run.readBytes,
      leftBytes: pager.leftPages * PAGE_BYTES,
      requests: count,
      latency: { p50, p99, max },
    };
    port.postMessage(report);
  };
  for (;;) {
    for (const { address } of faults.read()) {
      const { block, page } = blockAt(job, address);
      touch(pager, block, page, lookedAt);
    }
    const now = performance.now();
    lookedAt = now;
    const work = nextWork(pager, Pace.waitMs(pace, now) > 0 ? "later" : "now");
    if (now - toldAt >= LOOK_MS) tell(now);
    if (Atomics.load(stop, 0) === STOP) return "stopped";
    if (work !== null) {
      perform(run, work);
      if (work.since !== null) addLatency(latencies, performance.now() - work.since);
      else if (work._tag === "Copy") Pace.spend(pace, work.pages * PAGE_BYTES);
    } else if (pager.leftPages === 0) {
      tell(now);
      return "all";
    } else {
      waitForFaults(job.uffd, Math.min(LOOK_MS, Pace.waitMs(pace, now)));
      lookedAt = performance.now();
    }
  }
};

/** The errnos of calls on a guest's memory that say that the guest is gone, or waits for nothing any more. */
const GONE = new Set(["ESRCH", "ENOENT"]);

const endOf = (job: PagingJob): PagingEnd => {
  const pager = makePager(
    job.blocks.map(({ present, pages }) => ({ pages, present: { words: present, pageCount: pages } })),
  );
  try {
    const run: Run = { job, pager, buffer: new Uint8Array(CHUNK_PAGES_MAX * PAGE_BYTES), readBytes: 0 };
    return placeAll(run) === "all" ? { _tag: "AllThere" } : { _tag: "Stopped" };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (error instanceof HostError && GONE.has(error.errno)) return { _tag: "GuestGone", reason };
    // A file that ends too early holds these pages as little as one that was written over.
    if (error instanceof DamagedPage || (error as Error).name === "MalformedCheckpoint")
      return { _tag: "Damaged", reason };
    return { _tag: "Stuck", reason };
  }
};

port.on("message", (job: PagingJob) => {
  const end = endOf(job);
  port.postMessage(end satisfies PagingReport);
});
