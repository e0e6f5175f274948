import { closeSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createRamFile, mapFile } from "@godwit/host";
import { afterAll, assert, beforeAll, describe, it } from "vitest";
import { emptyLedger, startVcpus, type VcpuListener } from "./vcpus.ts";

const MEMORY_BYTES = 2 ** 20;
const PAGES = MEMORY_BYTES / 4096;
const workload = {
  seed: 1,
  vcpus: 2,
  dirtyRateBytesPerSecond: 0,
  workingSetBytes: 4096,
  mix: { zero: 0, compressible: 50, random: 50 },
};
const positions = [0, 0];
const quiet: VcpuListener = { found: () => undefined, swept: () => undefined, failed: () => undefined };

describe("the vCPU threads", () => {
  let address: bigint;
  let bytes: Uint8Array;
  let release: () => void;
  beforeAll(() => {
    const directory = mkdtempSync("/dev/shm/godwit-test-");
    const fd = createRamFile(join(directory, "ram"), MEMORY_BYTES);
    // Stays mapped: threads of the tests below keep views of it.
    ({ address, bytes } = mapFile(fd, { offsetBytes: 0, lengthBytes: MEMORY_BYTES }, "writable"));
    release = () => {
      closeSync(fd);
      rmSync(directory, { recursive: true });
    };
  });
  afterAll(() => release());

  it("fill and check all of memory between them, and are stopped until told to run", async () => {
    const vcpus = await startVcpus(address, MEMORY_BYTES, 2, quiet);
    await vcpus.configure({ workload, positions, ledger: emptyLedger(PAGES) }, "trust");
    await vcpus.fill();
    const results = await vcpus.check();
    assert.deepStrictEqual(
      results.map((result) => [result.pagesChecked, result.badCount]),
      [
        [128, 0],
        [128, 0],
      ],
    );
    bytes[4096 * 200]! ^= 1;
    const second = await vcpus.check();
    assert.deepStrictEqual(second[1]!.bad, [{ page: 200, expectedVersion: 1, found: "foreign" }]);
    assert.strictEqual(vcpus.counts().pagesWritten, 0);
  });

  it("grow in number when a load asks for more of them than were started", async () => {
    const vcpus = await startVcpus(address, MEMORY_BYTES, 1, quiet);
    const more = { ...workload, vcpus: 3 };
    await vcpus.configure({ workload: more, positions: [1, 2, 3], ledger: emptyLedger(PAGES) }, "verify");
    assert.strictEqual((await vcpus.check()).length, 3);
    assert.deepStrictEqual(vcpus.positions(), [1, 2, 3]);
  });

  it("report a thread that throws, and fail every command from then on", async () => {
    const failed = Promise.withResolvers<string>();
    const vcpus = await startVcpus(address, MEMORY_BYTES, 2, { ...quiet, failed: failed.resolve });
    // A ledger that ends before the second vCPU's share.
    const broken = vcpus.configure({ workload, positions, ledger: emptyLedger(PAGES / 2) }, "trust");
    await broken.then(
      () => assert.fail("configured"),
      (cause) => assert.match(cause.message, /vCPU 1 threw/),
    );
    assert.match(await failed.promise, /vCPU 1 threw/);
    await vcpus.run().then(
      () => assert.fail("ran"),
      (cause) => assert.match(cause.message, /vCPU 1/),
    );
  });
});
