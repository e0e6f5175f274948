/**
 * What the process's main thread and a vCPU thread say to each other.
 *
 *     main                               vCPU
 *      |-- post command, ring doorbell --> |   at the next page boundary, or at once when it sleeps
 *      | <----------------- done { id } -- |
 *      | <-- found / swept, as they come - |   while it runs after a load
 *
 * The doorbell is a number in shared memory that only grows: the vCPU compares it before each page and sleeps on it, so
 * it never has to return to an event loop.
 */
import type { Damage } from "./kernel/diagnosis.ts";
import type { PageRecipe } from "./kernel/page.ts";
import type { Share } from "./share.ts";

/** What a thread is started with. */
export interface VcpuStart {
  /** Where guest memory is mapped in this process. */
  readonly address: bigint;
  /** One Int32 cell. */
  readonly doorbell: SharedArrayBuffer;
}

/** All that one vCPU needs to run; sent once the workload is known. */
export interface VcpuConfiguration {
  readonly share: Share;
  readonly recipe: PageRecipe;
  /** Pages this vCPU writes, per ms. */
  readonly pagesPerMs: number;
  /** One Uint32 for each page of the guest: its version. The vCPU writes those of its share only. */
  readonly ledger: SharedArrayBuffer;
  /** Float64 cells, in the order of COUNTERS. The vCPU writes them, the main thread reads them. */
  readonly counters: SharedArrayBuffer;
  /** After a load: check every page before it is first written. */
  readonly verify: boolean;
}

export type VcpuCommand =
  | { readonly op: "configure"; readonly configuration: VcpuConfiguration }
  /** Writes version 1 of every page. */
  | { readonly op: "fill" }
  | { readonly op: "run" }
  | { readonly op: "pause" }
  /** Checks every page, while paused. */
  | { readonly op: "check" };

/** One page that does not hold what the ledger says. */
export interface Finding {
  readonly page: number;
  readonly expectedVersion: number;
  readonly found: Damage;
}

/** The outcome of a `check`: `bad` holds the first FINDINGS_MAX of `badCount`. */
export interface CheckResult {
  readonly pagesChecked: number;
  readonly badCount: number;
  readonly bad: ReadonlyArray<Finding>;
}

export type VcpuReport =
  | { readonly event: "ready" }
  | { readonly event: "done"; readonly id: number; readonly result: CheckResult | null }
  | { readonly event: "found"; readonly finding: Finding }
  /** Every page of the share was checked once since the load. */
  | { readonly event: "swept" };

/** Bad pages that are described one by one; more say nothing new, and a diagnosis takes milliseconds. */
export const FINDINGS_MAX = 16;

/** Cells of `counters`. */
export const POSITION = 0;
export const PAGES_WRITTEN = 1;
/** Writes that were due but given up, because the host did not keep up. */
export const PAGES_DROPPED = 2;
/** Pages checked since the load. */
export const PAGES_CHECKED = 3;
/** Of these, bad. */
export const PAGES_BAD = 4;
export const COUNTERS = 5;
