/** Which pages belong to which vCPU, and in what order it writes them. */
import { PAGE_BYTES } from "./kernel/page.ts";
import type { Workload } from "./spec.ts";

/** The pages one vCPU owns: nobody else writes or checks them. The first `workingPages` of them are its working set. */
export interface Share {
  readonly firstPage: number;
  readonly pageCount: number;
  readonly workingPages: number;
}

/** Pages that vCPUs share: all but those that are left to devices. */
export const pagesOfVcpus = ({ dmaWindowBytes = 0 }: Workload, memoryBytes: number): number =>
  (memoryBytes - dmaWindowBytes) / PAGE_BYTES;

/** The share of vCPU `index` in a guest of `memoryBytes`: contiguous, and all shares together are all that vCPUs have. */
export const shareOf = (workload: Workload, memoryBytes: number, index: number): Share => {
  const pages = pagesOfVcpus(workload, memoryBytes);
  const firstPage = Math.floor((pages * index) / workload.vcpus);
  const pageCount = Math.floor((pages * (index + 1)) / workload.vcpus) - firstPage;
  const working = Math.ceil(workload.workingSetBytes / PAGE_BYTES / workload.vcpus);
  return { firstPage, pageCount, workingPages: Math.min(pageCount, working) };
};

/** Pages written one after the other before the vCPU jumps elsewhere: programs write in short runs at scattered places. */
export const RUN_PAGES = 8;

/**
 * An endless walk over a working set: short runs at scattered places, each page exactly once in `slots` steps, so that the
 * pages dirtied in a second are those written in a second until the whole set is dirty. A step without a page is -1.
 */
export interface Walk {
  readonly slots: number;
  readonly pageAt: (position: number) => number;
}

/** The walk over `workingPages` pages, numbered from 0. */
export const walkOf = (workingPages: number): Walk => {
  const runs = Math.ceil(workingPages / RUN_PAGES);
  const stride = coprimeNear(Math.floor(runs * GOLDEN), runs);
  return {
    slots: runs * RUN_PAGES,
    pageAt: (position) => {
      const slot = position % (runs * RUN_PAGES);
      const run = (Math.floor(slot / RUN_PAGES) * stride) % runs;
      const page = run * RUN_PAGES + (slot % RUN_PAGES);
      return page < workingPages ? page : -1;
    },
  };
};

/** Steps of this fraction of a circle keep away from where they have been the longest. */
const GOLDEN = 0.618;

const coprimeNear = (start: number, modulus: number): number => {
  let candidate = Math.max(1, start);
  while (greatestCommonDivisor(candidate, modulus) !== 1) candidate++;
  return candidate;
};

const greatestCommonDivisor = (a: number, b: number): number => (b === 0 ? a : greatestCommonDivisor(b, a % b));
