/** What is known about guest memory since a load: the sum of what the vCPUs' sweeps report. */
import { type CheckResult, FINDINGS_MAX, type Finding } from "./vcpu-messages.ts";

/** `done`: every page was checked once. `bad` holds the first 16 of `badCount`. */
export interface VerifyReport {
  readonly done: boolean;
  readonly pagesChecked: number;
  readonly pagesTotal: number;
  readonly badCount: number;
  readonly bad: ReadonlyArray<Finding>;
}

/** One sweep over all vCPUs' shares. */
export interface Sweep {
  /** All that shall be checked. */
  readonly pages: number;
  readonly found: (finding: Finding) => void;
  readonly vcpuDone: () => void;
  readonly isDone: () => boolean;
  readonly bad: () => ReadonlyArray<Finding>;
  /** Settles with the sweep; rejects when it is abandoned. */
  readonly finished: Promise<void>;
  readonly abandon: (reason: Error) => void;
}

/** A sweep over `pages` that `vcpus` threads are about to begin. */
export const makeSweep = (vcpus: number, pages: number): Sweep => {
  const bad: Array<Finding> = [];
  const finished = Promise.withResolvers<void>();
  // Nobody needs to wait for it.
  finished.promise.catch(() => undefined);
  let left = vcpus;
  return {
    pages,
    found: (finding) => {
      if (bad.length < FINDINGS_MAX) bad.push(finding);
    },
    vcpuDone: () => {
      left--;
      if (left === 0) finished.resolve();
    },
    isDone: () => left === 0,
    bad: () => bad,
    finished: finished.promise,
    abandon: finished.reject,
  };
};

/** The report of a full check of a paused guest. */
export const reportOfCheck = (results: ReadonlyArray<CheckResult>): VerifyReport => {
  const pagesChecked = results.reduce((sum, result) => sum + result.pagesChecked, 0);
  return {
    done: true,
    pagesChecked,
    pagesTotal: pagesChecked,
    badCount: results.reduce((sum, result) => sum + result.badCount, 0),
    bad: results.flatMap((result) => result.bad).slice(0, FINDINGS_MAX),
  };
};
