import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { programFile } from "@godwit/host";
import type { DirtyRun } from "../dirty-tracker.ts";
import {
  CONTROL,
  type ContentOrder,
  type ContentReport,
  type ContentWorkerData,
  chunksOf,
  REPORTS_WAITING_MAX,
  type ScanOrder,
  type ShadowedBlock,
} from "./content-messages.ts";

/** Threads that compare. One moves 7 GB/s here, so four fill the memory bus of most hosts; more would only take it from the guest. */
const THREADS_MAX = 4;

/** Threads that compare guest memory with its shadow. One scan at a time. */
export interface ContentPool {
  /** Scans all blocks and resolves once every thread rests again. Rejects with the first failure, also one of `found`. */
  readonly scan: (demand: ScanOrder["demand"], found: DirtyRun) => Promise<void>;
  /** Makes a running scan end early, within a chunk of 1 ms; its promise resolves as usual. */
  readonly stop: () => void;
  /** Ends the threads. */
  readonly close: () => Promise<void>;
}

/** What a scan in progress waits for. */
interface Running {
  readonly found: DirtyRun;
  threadsBusy: number;
  failure: { readonly cause: unknown } | null;
  readonly finish: () => void;
}

export const openContentPool = (blocks: ReadonlyArray<ShadowedBlock>): ContentPool => {
  const control = new Int32Array(new SharedArrayBuffer(CONTROL.WORDS * Int32Array.BYTES_PER_ELEMENT));
  const chunks = chunksOf(blocks.map(({ block }) => block));
  const data: ContentWorkerData = { blocks, chunks, control };
  const threads = Math.max(1, Math.min(availableParallelism(), THREADS_MAX, chunks.length));
  const program = programFile(new URL("./content-worker.ts", import.meta.url));
  const workers = Array.from(
    { length: threads },
    () => new Worker(program, { workerData: data, name: "content-tracker" }),
  );
  const ended = workers.map((worker) => new Promise((resolve) => worker.once("exit", resolve)));
  let running: Running | null = null;
  /** Set once a thread has ended: its share of a scan would be missing. */
  let broken: { readonly cause: unknown } | null = null;

  const stop = () => {
    Atomics.store(control, CONTROL.STOP, 1);
    Atomics.notify(control, CONTROL.REPORTS_WAITING);
  };
  const fail = (cause: unknown) => {
    if (running !== null) running.failure ??= { cause };
    stop();
  };
  const rest = () => {
    if (running !== null && --running.threadsBusy === 0) running.finish();
  };
  const take = (report: ContentReport) => {
    if (report._tag === "Done") return rest();
    if (report._tag === "Failed") return fail(new Error(report.reason));
    const before = Atomics.sub(control, CONTROL.REPORTS_WAITING, 1);
    if (before >= REPORTS_WAITING_MAX) Atomics.notify(control, CONTROL.REPORTS_WAITING);
    if (running === null || running.failure !== null) return;
    try {
      for (let at = 0; at < report.runs.length; at += 2) {
        running.found(report.block, report.runs[at]!, report.runs[at + 1]!);
      }
    } catch (cause) {
      fail(cause);
    }
  };
  for (const worker of workers) {
    // An idle pool must not keep its process alive.
    worker.unref();
    worker.on("message", take);
    worker.on("error", fail);
    worker.on("error", (cause) => {
      broken ??= { cause };
    });
    worker.on("exit", () => {
      broken ??= { cause: new Error("a thread of the content tracker has ended") };
      fail(broken.cause);
      rest();
    });
  }

  const scan = async (demand: ScanOrder["demand"], found: DirtyRun): Promise<void> => {
    if (broken !== null) throw broken.cause;
    control.fill(0);
    const { promise, resolve } = Promise.withResolvers<void>();
    const now: Running = { found, threadsBusy: workers.length, failure: null, finish: resolve };
    running = now;
    for (const worker of workers) worker.ref();
    for (const worker of workers) worker.postMessage({ demand } satisfies ScanOrder);
    await promise;
    for (const worker of workers) worker.unref();
    running = null;
    if (now.failure !== null) throw now.failure.cause;
  };
  const close = async () => {
    stop();
    // Not terminated: a thread that is has no time to unmap its files.
    for (const worker of workers) {
      worker.ref();
      worker.postMessage("end" satisfies ContentOrder);
    }
    await Promise.all(ended);
  };
  return { scan, stop, close };
};
