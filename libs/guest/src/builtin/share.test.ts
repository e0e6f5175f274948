import * as fc from "fast-check";
import { assert, describe, it } from "vitest";
import { RUN_PAGES, shareOf, walkOf } from "./share.ts";

const workloadOf = (vcpus: number, workingSetBytes: number) => ({
  seed: 1,
  vcpus,
  dirtyRateBytesPerSecond: 0,
  workingSetBytes,
  mix: { zero: 40, compressible: 30, random: 30 },
});

describe("the shares of the vCPUs", () => {
  it("are the whole memory, each page once, and hold the working set", () => {
    const sizes = fc.record({
      pages: fc.integer({ min: 64, max: 100_000 }),
      vcpus: fc.integer({ min: 1, max: 64 }),
      percent: fc.integer({ min: 1, max: 100 }),
    });
    fc.assert(
      fc.property(sizes, ({ pages, vcpus, percent }) => {
        const workingPages = Math.ceil((pages * percent) / 100);
        const workload = workloadOf(vcpus, workingPages * 4096);
        let next = 0;
        let working = 0;
        for (let index = 0; index < vcpus; index++) {
          const share = shareOf(workload, pages * 4096, index);
          assert.strictEqual(share.firstPage, next);
          assert.isAbove(share.pageCount, 0);
          assert.isAbove(share.workingPages, 0);
          next += share.pageCount;
          working += share.workingPages;
        }
        assert.strictEqual(next, pages);
        assert.isAtMost(Math.abs(working - workingPages), vcpus);
      }),
    );
  });

  it("end where the memory of devices begins", () => {
    const workload = { ...workloadOf(3, 4096), dmaWindowBytes: 10 * 4096 };
    const { firstPage, pageCount } = shareOf(workload, 100 * 4096, 2);
    assert.strictEqual(firstPage + pageCount, 90);
  });
});

describe("a walk over the working set", () => {
  it("visits each page exactly once before it starts again", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2000 }), (workingPages) => {
        const walk = walkOf(workingPages);
        const visited = Array.from({ length: walk.slots }, (_, position) => walk.pageAt(position));
        const pages = visited.filter((page) => page >= 0).toSorted((a, b) => a - b);
        assert.deepStrictEqual(
          pages,
          Array.from({ length: workingPages }, (_, page) => page),
        );
        assert.strictEqual(walk.pageAt(walk.slots), walk.pageAt(0));
      }),
    );
  });

  it("goes in short runs at scattered places", () => {
    const walk = walkOf(1024);
    const starts = Array.from({ length: 8 }, (_, run) => walk.pageAt(run * RUN_PAGES));
    assert.strictEqual(walk.pageAt(1), starts[0]! + 1);
    const gaps = starts.slice(1).map((start, index) => Math.abs(start - starts[index]!));
    assert.isTrue(gaps.every((gap) => gap > 100));
  });

  it("can be gone on with for years", () => {
    const walk = walkOf(1000);
    const far = walk.slots * 1e10;
    assert.strictEqual(walk.pageAt(far + 3), walk.pageAt(3));
  });
});
