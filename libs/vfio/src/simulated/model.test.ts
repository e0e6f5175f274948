import fc from "fast-check";
import { assert, describe, it } from "vitest";
import type { DeviceState } from "../state-machine.ts";
import { NEVER, type Operation, SimulatedModel } from "./model.ts";
import type { SimulatedSpec } from "./spec.ts";

const SPEC: SimulatedSpec = {
  name: "nic",
  role: "boot",
  stateBytes: 100_000,
  initialBytes: 10_000,
  preCopy: true,
  preCopyData: "all",
  p2p: true,
  dirtyBytesPerSecond: 0,
  readBytesPerSecond: 0,
  arcLatencyMs: {},
  allocationMs: 0,
  seed: 7,
  faults: [],
  dma: null,
};

/** A device in a time that only waiting moves. */
const makeWorld = (...specs: ReadonlyArray<Partial<SimulatedSpec>>) => {
  let nowMs = 0;
  const devices = specs.map((spec) => new SimulatedModel({ ...SPEC, ...spec }, () => nowMs));
  /** Carries an operation out; its answer, and how long it took. */
  const timed = <A>(operation: Operation<A>): { readonly answer: A; readonly ms: number } => {
    const begun = nowMs;
    for (;;) {
      const step = operation.next();
      if (step.done === true) return { answer: step.value, ms: nowMs - begun };
      if (step.value === NEVER) throw new Error("it hangs");
      nowMs += step.value;
    }
  };
  const go = (device: SimulatedModel, to: DeviceState): number => timed(device.setState(to)).ms;
  const read = (device: SimulatedModel, bytes: number): Buffer => {
    const into = Buffer.alloc(bytes);
    return into.subarray(0, timed(device.read(into)).answer);
  };
  const readPass = (device: SimulatedModel): Buffer => {
    const parts: Array<Buffer> = [];
    for (let part = read(device, 65_536); part.length > 0; part = read(device, 65_536)) parts.push(part);
    return Buffer.concat(parts);
  };
  const wait = (ms: number): void => {
    nowMs += ms;
  };
  return { devices, timed, go, read, readPass, wait };
};
const makePair = (spec: Partial<SimulatedSpec>) => {
  const world = makeWorld(spec, { ...spec, role: "incoming", seed: 99 });
  return { ...world, source: world.devices[0]!, destination: world.devices[1]! };
};
const errnoOf = (action: () => unknown): string => {
  try {
    action();
  } catch (cause) {
    return (cause as { errno?: string }).errno ?? String(cause);
  }
  return "none";
};

describe("a simulated device that works", () => {
  it("changes its memory while it runs, as fast as it shall, and only then", () => {
    const { devices, go, wait, readPass, timed } = makeWorld({ dirtyBytesPerSecond: 50_000 });
    const device = devices[0]!;
    go(device, "PRE_COPY");
    readPass(device);
    wait(200);
    const { dirtyBytes } = timed(device.precopyInfo()).answer;
    assert.isAtLeast(dirtyBytes, 10_000 * 0.9);
    assert.isAtMost(dirtyBytes, 10_000 * 1.5, "records have a head, and blocks are whole");
    go(device, "STOP");
    const { digest } = device.diagnosis();
    wait(60_000);
    assert.strictEqual(device.diagnosis().digest, digest);
    go(device, "RUNNING");
    wait(100);
    assert.notStrictEqual(device.diagnosis().digest, digest);
  });

  it("is idle when it waits for a state, and goes on once it has one", () => {
    const { source, destination, go, wait, readPass, timed } = makePair({ dirtyBytesPerSecond: 50_000 });
    const fresh = destination.diagnosis().digest;
    wait(1000);
    assert.strictEqual(destination.diagnosis().digest, fresh);
    go(source, "STOP_COPY");
    go(destination, "RESUMING");
    timed(destination.write(readPass(source)));
    wait(1000);
    go(destination, "RUNNING");
    const { saved } = source.diagnosis();
    assert.deepStrictEqual(destination.diagnosis().loaded, saved);
    assert.isAbove(saved?.generation ?? 0, 0);
    wait(1000);
    assert.isAbove(destination.diagnosis().generation, saved?.generation ?? 0);
  });

  it("moves whole while it changes, whenever it is read and stopped", () => {
    const step = fc.record({ waitMs: fc.nat(50), bytes: fc.integer({ min: 1, max: 30_000 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), fc.constantFrom("all", "initial"), (steps, preCopyData) => {
        const { source, destination, go, wait, read, readPass, timed } = makePair({
          dirtyBytesPerSecond: 400_000,
          preCopyData: preCopyData as "all" | "initial",
        });
        go(source, "PRE_COPY");
        go(destination, "RESUMING");
        for (const { waitMs, bytes } of steps) {
          wait(waitMs);
          timed(destination.write(read(source, bytes)));
        }
        go(source, "STOP_COPY");
        const left = source.stopCopyBytes();
        const rest = readPass(source);
        assert.strictEqual(rest.length, left);
        timed(destination.write(rest));
        go(destination, "STOP");
        assert.deepStrictEqual(destination.diagnosis().loaded, source.diagnosis().saved);
      }),
      { numRuns: 60 },
    );
  });

  it("gives only initial data before the stop if it shall", () => {
    const { devices, go, readPass } = makeWorld({ preCopyData: "initial" });
    const device = devices[0]!;
    go(device, "PRE_COPY");
    assert.isBelow(readPass(device).length, 15_000);
    go(device, "STOP_COPY");
    assert.isAbove(readPass(device).length, 90_000);
  });
});

describe("a simulated device that takes its time", () => {
  it("walks each arc in the time it shall take", () => {
    const { devices, go } = makeWorld({
      arcLatencyMs: { "RUNNING->RUNNING_P2P": 5, "RUNNING_P2P->STOP": 20, "STOP->STOP_COPY": 100 },
    });
    const device = devices[0]!;
    assert.strictEqual(go(device, "STOP_COPY"), 125);
    assert.strictEqual(go(device, "RUNNING"), 0);
  });

  it("is read no faster than it shall be", () => {
    const { devices, go, read, timed } = makeWorld({ readBytesPerSecond: 1_000_000 });
    const device = devices[0]!;
    go(device, "STOP_COPY");
    let ms = 0;
    for (let bytes = 1; bytes > 0; ) {
      const step = timed(device.read(Buffer.alloc(1000)));
      bytes = step.answer;
      ms += step.ms;
    }
    assert.isAtLeast(ms, 99);
    assert.isAtMost(ms, 130);
    assert.lengthOf(read(device, 10), 0);
  });

  it.each([1, 9999, 13_000, 200_000])(
    "allocates once, when it has its initial data, written by %i bytes",
    (segment) => {
      const { source, destination, go, readPass, timed } = makePair({ allocationMs: 1480 });
      go(source, "STOP_COPY");
      const stream = readPass(source);
      for (const attempt of [1, 2]) {
        go(destination, "RESUMING");
        let allocatedAt = -1;
        for (let at = 0; at < stream.length; at += segment) {
          const { ms } = timed(destination.write(stream.subarray(at, at + segment)));
          if (ms === 0) continue;
          assert.strictEqual(ms, 1480);
          assert.strictEqual(allocatedAt, -1, "twice");
          allocatedAt = at + segment;
        }
        // 10,000 bytes in blocks of 512, each with a head of 32.
        assert.strictEqual(Math.ceil((64 + 20 * (512 + 32)) / segment) * segment, allocatedAt);
        go(destination, "RUNNING");
        assert.strictEqual(destination.diagnosis().allocations, attempt);
      }
    },
  );
});

describe("a simulated device that fails", () => {
  it("stops in the middle of a way", () => {
    const { devices, go } = makeWorld({ faults: [{ at: "RUNNING_P2P->STOP", nth: 2, kind: "EBUSY", times: 1 }] });
    const device = devices[0]!;
    go(device, "STOP");
    go(device, "RUNNING");
    assert.strictEqual(
      errnoOf(() => go(device, "STOP_COPY")),
      "EBUSY",
    );
    assert.strictEqual(device.state, "RUNNING_P2P");
    go(device, "STOP_COPY");
  });

  it("goes to ERROR, which only a reset leaves", () => {
    const { devices, go, timed } = makeWorld({ faults: [{ at: "read", nth: 2, kind: "error-state", times: 1 }] });
    const device = devices[0]!;
    go(device, "STOP_COPY");
    timed(device.read(Buffer.alloc(10)));
    assert.strictEqual(
      errnoOf(() => timed(device.read(Buffer.alloc(10)))),
      "EIO",
    );
    assert.strictEqual(device.state, "ERROR");
    assert.strictEqual(
      errnoOf(() => go(device, "RUNNING")),
      "EINVAL",
    );
    timed(device.reset());
    assert.strictEqual(device.state, "RUNNING");
    assert.strictEqual(device.diagnosis().resets, 1);
  });

  it("keeps its stream whole when a read or a write fails", () => {
    const { source, destination, go, readPass, timed } = makePair({
      faults: [
        { at: "read", nth: 2, kind: "EIO", times: 2 },
        { at: "write", nth: 1, kind: "ENOSPC", times: 1 },
      ],
    });
    go(source, "STOP_COPY");
    go(destination, "RESUMING");
    const parts: Array<Buffer> = [];
    const failures: Array<string> = [];
    for (let i = 0; i < 4; i++) {
      const into = Buffer.alloc(1000);
      failures.push(errnoOf(() => parts.push(into.subarray(0, timed(source.read(into)).answer))));
    }
    assert.deepStrictEqual(failures, ["none", "EIO", "EIO", "none"]);
    const stream = Buffer.concat([...parts, readPass(source)]);
    assert.strictEqual(
      errnoOf(() => timed(destination.write(stream))),
      "ENOSPC",
    );
    timed(destination.write(stream));
    go(destination, "RUNNING");
    assert.deepStrictEqual(destination.diagnosis().loaded, source.diagnosis().saved);
  });

  it("does not answer, and answers what is asked later", () => {
    const { devices, go } = makeWorld({ faults: [{ at: "precopy-info", nth: 1, kind: "hang", times: 1 }] });
    const device = devices[0]!;
    go(device, "PRE_COPY");
    assert.strictEqual(device.precopyInfo().next().value, NEVER);
    assert.property(device.precopyInfo().next().value, "initialBytes");
  });
});

describe("a simulated destination", () => {
  it("takes nothing more after a write that it refused, and does not run with it", () => {
    const { source, destination, go, readPass, timed } = makePair({});
    go(source, "STOP_COPY");
    const stream = readPass(source);
    const damaged = Buffer.from(stream);
    damaged[50_000]! ^= 1;
    go(destination, "RESUMING");
    assert.strictEqual(
      errnoOf(() => timed(destination.write(damaged))),
      "EIO",
    );
    assert.strictEqual(
      errnoOf(() => timed(destination.write(stream))),
      "EIO",
    );
    assert.strictEqual(
      errnoOf(() => go(destination, "STOP")),
      "EINVAL",
    );
    assert.strictEqual(destination.state, "RESUMING");
    assert.isNull(destination.diagnosis().loaded);
  });

  it("refuses the state of another size, and what comes behind the end", () => {
    const { devices, go, readPass, timed } = makeWorld({}, { stateBytes: 100_001, role: "incoming" }, {});
    const [source, larger, same] = devices as [SimulatedModel, SimulatedModel, SimulatedModel];
    go(source, "STOP_COPY");
    const stream = readPass(source);
    for (const device of [larger, same]) go(device, "RESUMING");
    assert.strictEqual(
      errnoOf(() => timed(larger.write(stream))),
      "EIO",
    );
    timed(same.write(stream));
    assert.strictEqual(
      errnoOf(() => timed(same.write(Buffer.alloc(1)))),
      "EIO",
    );
  });
});
