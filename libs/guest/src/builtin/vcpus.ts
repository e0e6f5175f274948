/** The vCPU threads of a guest as its main thread sees them: commands go to all of them, and are done when all have answered. */
import { Worker } from "node:worker_threads";
import { programFile } from "@godwit/host";
import { PAGE_BYTES, recipeOf } from "./kernel/page.ts";
import { shareOf } from "./share.ts";
import type { Workload } from "./spec.ts";
import {
  type CheckResult,
  COUNTERS,
  type Finding,
  PAGES_BAD,
  PAGES_CHECKED,
  PAGES_DROPPED,
  PAGES_WRITTEN,
  POSITION,
  type VcpuCommand,
  type VcpuReport,
  type VcpuStart,
} from "./vcpu-messages.ts";

/** Told of what vCPUs report without being asked. */
export interface VcpuListener {
  readonly found: (finding: Finding) => void;
  /** One vCPU has checked its whole share. */
  readonly swept: () => void;
  /** A thread ended or threw: the guest is beyond repair. */
  readonly failed: (reason: string) => void;
}

/** Sums over all vCPUs. */
export interface VcpuCounts {
  readonly pagesWritten: number;
  readonly pagesDropped: number;
  readonly pagesChecked: number;
  readonly pagesBad: number;
}

/** What of the vCPUs is device state. */
export interface VcpuState {
  readonly workload: Workload;
  /** Where each vCPU is in its walk. */
  readonly positions: ReadonlyArray<number>;
  /** The version of each page that vCPUs have. */
  readonly ledger: Uint32Array<SharedArrayBuffer>;
}

export interface Vcpus {
  /** Gives the vCPUs their work; `verify` makes them check each page before they first write it. They stay paused. */
  readonly configure: (state: VcpuState, mode: "verify" | "trust") => Promise<void>;
  readonly fill: () => Promise<void>;
  readonly run: () => Promise<void>;
  /** Resolves once no vCPU writes any more. */
  readonly pause: () => Promise<void>;
  readonly check: () => Promise<ReadonlyArray<CheckResult>>;
  readonly positions: () => ReadonlyArray<number>;
  readonly counts: () => VcpuCounts;
}

/** A ledger of so many pages that were never filled. */
export const emptyLedger = (pages: number): Uint32Array<SharedArrayBuffer> =>
  new Uint32Array(new SharedArrayBuffer(pages * Uint32Array.BYTES_PER_ELEMENT));

/** Starts `count` threads over guest memory at `address`; resolves when all of them wait for a command. */
export const startVcpus = async (
  address: bigint,
  memoryBytes: number,
  count: number,
  listener: VcpuListener,
): Promise<Vcpus> => {
  const threads: Array<Thread> = [];
  const grow = async (wanted: number): Promise<void> => {
    while (threads.length < wanted) threads.push(new Thread(address, threads.length, listener));
    await Promise.all(threads.map((thread) => thread.ready));
  };
  await grow(count);
  /** Those that have work: after a load there may be more threads than the guest has vCPUs. */
  let active: Array<Thread> = [];
  let counters: Array<Float64Array> = [];
  const all = (command: VcpuCommand): Promise<Array<CheckResult | null>> =>
    Promise.all(active.map((thread) => thread.command(command)));
  const settle = async (command: VcpuCommand): Promise<void> => {
    await all(command);
  };
  const sum = (cell: number): number => counters.reduce((total, cells) => total + cells[cell]!, 0);

  return {
    configure: async ({ workload, positions, ledger }, mode) => {
      await grow(workload.vcpus);
      active = threads.slice(0, workload.vcpus);
      const cells = active.map(() => new SharedArrayBuffer(COUNTERS * Float64Array.BYTES_PER_ELEMENT));
      counters = cells.map((buffer) => new Float64Array(buffer));
      for (const [index, position] of positions.entries()) counters[index]![POSITION] = position;
      const pagesPerMs = workload.dirtyRateBytesPerSecond / PAGE_BYTES / 1000 / workload.vcpus;
      const recipe = recipeOf(workload.seed, workload.mix);
      await Promise.all(
        active.map((thread, index) =>
          thread.command({
            op: "configure",
            configuration: {
              share: shareOf(workload, memoryBytes, index),
              recipe,
              pagesPerMs,
              ledger: ledger.buffer,
              counters: cells[index]!,
              verify: mode === "verify",
            },
          }),
        ),
      );
    },
    fill: () => settle({ op: "fill" }),
    run: () => settle({ op: "run" }),
    pause: () => settle({ op: "pause" }),
    check: async () => (await all({ op: "check" })).filter((result) => result !== null),
    positions: () => counters.map((cells) => cells[POSITION]!),
    counts: () => ({
      pagesWritten: sum(PAGES_WRITTEN),
      pagesDropped: Math.floor(sum(PAGES_DROPPED)),
      pagesChecked: sum(PAGES_CHECKED),
      pagesBad: sum(PAGES_BAD),
    }),
  };
};

class Thread {
  readonly ready: Promise<void>;
  readonly #worker: Worker;
  readonly #doorbell: Int32Array;
  readonly #waiting = new Map<number, PromiseWithResolvers<CheckResult | null>>();
  #lastId = 0;
  #failure: Error | null = null;

  constructor(address: bigint, index: number, listener: VcpuListener) {
    const doorbell = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
    this.#doorbell = new Int32Array(doorbell);
    const start: VcpuStart = { address, doorbell };
    this.#worker = new Worker(programFile(new URL("./vcpu.ts", import.meta.url)), {
      workerData: start,
      name: `vcpu-${index}`,
    });
    const ready = Promise.withResolvers<void>();
    this.ready = ready.promise;
    const fail = (reason: string): void => {
      if (this.#failure !== null) return;
      this.#failure = new Error(`vCPU ${index} ${reason}`);
      ready.reject(this.#failure);
      for (const waiting of this.#waiting.values()) waiting.reject(this.#failure);
      this.#waiting.clear();
      listener.failed(this.#failure.message);
    };
    this.#worker.on("error", (cause) => fail(`threw: ${cause instanceof Error ? cause.message : String(cause)}`));
    this.#worker.on("exit", (code) => fail(`ended with exit code ${code}`));
    this.#worker.on("message", (report: VcpuReport) => {
      switch (report.event) {
        case "ready":
          return ready.resolve();
        case "done":
          this.#waiting.get(report.id)?.resolve(report.result);
          this.#waiting.delete(report.id);
          return;
        case "found":
          return listener.found(report.finding);
        case "swept":
          return listener.swept();
      }
    });
  }

  command(command: VcpuCommand): Promise<CheckResult | null> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    const id = ++this.#lastId;
    const waiting = Promise.withResolvers<CheckResult | null>();
    this.#waiting.set(id, waiting);
    // The message first: whoever hears the doorbell finds it.
    this.#worker.postMessage({ id, command });
    Atomics.add(this.#doorbell, 0, 1);
    Atomics.notify(this.#doorbell, 0);
    return waiting.promise;
  }
}
