import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
import type { DeviceState } from "../state-machine.ts";
import { SimulatedModel } from "./model.ts";

const MiB = 2 ** 20;
const PAGE = 4096;
const WINDOW = { offsetBytes: MiB, lengthBytes: MiB, bytesPerSecond: 10 * MiB };

describe("a device's own writes to guest memory", () => {
  let directory = "";
  let nowMs = 0;
  const ram = (name: string): string => join(directory, name);
  const makeRam = (name: string): string => {
    const fd = openSync(ram(name), "w");
    ftruncateSync(fd, 3 * MiB);
    closeSync(fd);
    return ram(name);
  };
  const makeDevice = (path: string, role: "boot" | "incoming"): SimulatedModel =>
    new SimulatedModel(
      {
        name: "nic",
        role,
        stateBytes: 1000,
        initialBytes: 0,
        preCopy: true,
        preCopyData: "all",
        p2p: true,
        dirtyBytesPerSecond: 0,
        readBytesPerSecond: 0,
        arcLatencyMs: {},
        allocationMs: 0,
        seed: 3,
        faults: [],
        dma: { ...WINDOW, path, logged: true },
      },
      () => nowMs,
    );
  const go = (device: SimulatedModel, to: DeviceState): void => void device.setState(to).next();
  const move = (source: SimulatedModel, destination: SimulatedModel): void => {
    go(source, "STOP_COPY");
    const into = Buffer.alloc(MiB);
    const bytes = source.read(into).next().value as number;
    go(destination, "RESUMING");
    destination.write(into.subarray(0, bytes)).next();
  };
  const changed = (before: Buffer, after: Buffer): ReadonlyArray<number> =>
    Array.from({ length: after.length / PAGE }, (_, page) => page).filter(
      (page) => before.compare(after, page * PAGE, (page + 1) * PAGE, page * PAGE, (page + 1) * PAGE) !== 0,
    );
  const bitsOf = (bitmap: Uint8Array): ReadonlyArray<number> =>
    [...bitmap].flatMap((byte, i) =>
      [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => byte & (1 << bit)).map((bit) => i * 8 + bit),
    );

  beforeEach(() => {
    directory = mkdtempSync("/dev/shm/godwit-dma-");
    nowMs = 0;
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it("happen as fast as they shall, within the window, and are logged page by page until they are reported", () => {
    const device = makeDevice(makeRam("a"), "boot");
    device.dma!.log.start(PAGE, []);
    for (const due of [25, 7]) {
      const before = readFileSync(ram("a"));
      nowMs += (due * PAGE * 1000) / WINDOW.bytesPerSecond + 1e-6;
      device.account();
      const pages = changed(before, readFileSync(ram("a")));
      assert.lengthOf(pages, due);
      assert.isTrue(pages.every((page) => page >= 256 && page < 512));
      const report = () => bitsOf(device.dma!.log.report({ iova: 0, length: 3 * MiB }, PAGE));
      assert.deepStrictEqual(report(), pages);
      assert.deepStrictEqual(report(), []);
    }
    device.close();
  });

  it("are reported in larger pages, and only of the ranges that are logged", () => {
    const device = makeDevice(makeRam("a"), "boot");
    device.dma!.log.start(PAGE, [{ iova: MiB, length: MiB / 2 }]);
    nowMs += 10_000;
    device.account();
    const bits = bitsOf(device.dma!.log.report({ iova: MiB, length: MiB }, 64 * 1024));
    assert.deepStrictEqual(bits, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert.throws(() => device.dma!.log.start(PAGE, []), /logs already/);
    device.dma!.log.stop();
    assert.throws(() => device.dma!.log.report({ iova: MiB, length: MiB }, PAGE), /does not log/);
    device.close();
  });

  it("stop in the P2P states and those that do not run, and for a device that waits for its state", () => {
    const device = makeDevice(makeRam("a"), "boot");
    const waiting = makeDevice(makeRam("b"), "incoming");
    const untouched = readFileSync(ram("b"));
    for (const state of ["RUNNING_P2P", "PRE_COPY_P2P", "STOP", "STOP_COPY", "PRE_COPY"] as const) {
      go(device, "RUNNING");
      go(device, state);
      const before = readFileSync(ram("a"));
      nowMs += 50;
      for (const each of [device, waiting]) each.account();
      assert.strictEqual(changed(before, readFileSync(ram("a"))).length > 0, state === "PRE_COPY", state);
    }
    assert.isTrue(untouched.equals(readFileSync(ram("b"))));
    for (const each of [device, waiting]) each.close();
  });

  it("are checked at the destination, and a page that came too early is stale", () => {
    const source = makeDevice(makeRam("a"), "boot");
    nowMs += 50;
    source.account();
    copyFileSync(ram("a"), ram("early"));
    nowMs += 30;
    go(source, "STOP");
    copyFileSync(ram("a"), ram("whole"));
    const late = changed(readFileSync(ram("early")), readFileSync(ram("whole")));
    assert.isNotEmpty(late);
    for (const [name, stale] of [
      ["whole", []],
      ["early", late.map((page) => page - 256)],
    ] as const) {
      const destination = makeDevice(ram(name), "incoming");
      move(source, destination);
      assert.isNull(destination.diagnosis().dma?.stalePages);
      go(destination, "RUNNING");
      const { stalePages, staleShown } = destination.diagnosis().dma!;
      assert.strictEqual(stalePages, stale.length, name);
      assert.deepStrictEqual(staleShown, stale.slice(0, 8));
      go(source, "STOP");
      destination.close();
    }
    source.close();
  });

  it("go on with the counters at the destination", () => {
    const source = makeDevice(makeRam("a"), "boot");
    nowMs += 50;
    go(source, "STOP");
    const destination = makeDevice(ram("a"), "incoming");
    move(source, destination);
    go(destination, "RUNNING");
    nowMs += 70;
    go(destination, "STOP");
    const third = makeDevice(ram("a"), "incoming");
    move(destination, third);
    go(third, "RUNNING");
    assert.strictEqual(third.diagnosis().dma?.stalePages, 0);
    const fd = openSync(ram("a"), "r+");
    writeSync(fd, Buffer.alloc(PAGE), 0, PAGE, MiB + 5 * PAGE);
    closeSync(fd);
    go(third, "STOP");
    const fourth = makeDevice(ram("a"), "incoming");
    move(third, fourth);
    go(fourth, "RUNNING");
    assert.deepStrictEqual(fourth.diagnosis().dma?.staleShown, [5]);
    for (const each of [source, destination, third, fourth]) each.close();
  });

  it("wait for a RAM file that is not there yet, and never make one longer", () => {
    const device = makeDevice(ram("later"), "boot");
    nowMs += 100;
    device.account();
    assert.strictEqual(device.diagnosis().dma?.refusal, "ENOENT");
    const fd = openSync(ram("later"), "w");
    ftruncateSync(fd, MiB);
    nowMs += 100;
    device.account();
    assert.strictEqual(device.diagnosis().dma?.refusal, "EOVERFLOW");
    ftruncateSync(fd, 2 * MiB);
    closeSync(fd);
    nowMs += 100;
    device.account();
    assert.isAbove(device.diagnosis().dma?.pagesWritten ?? 0, 0);
    device.close();
  });
});
