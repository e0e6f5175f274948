import { assert, describe, it } from "vitest";
import { parseProcessSpec } from "./spec.ts";

const boot = {
  name: "vm1",
  socket: "/run/vm1.sock",
  ramPath: "/dev/shm/vm1.ram0",
  memoryBytes: 2 ** 24,
  role: "boot",
  workload: {
    seed: 1,
    vcpus: 2,
    dirtyRateBytesPerSecond: 1000,
    workingSetBytes: 2 ** 20,
    mix: { zero: 40, compressible: 30, random: 30 },
  },
};
const incoming = { ...boot, role: "incoming", workload: undefined, vcpus: 2 };
const withWorkload = (change: object) => ({ ...boot, workload: { ...boot.workload, ...change } });

describe("the spec of a guest process", () => {
  it("is taken when it is right", () => {
    assert.deepStrictEqual(parseProcessSpec(JSON.stringify(boot)), boot as never);
    assert.strictEqual(parseProcessSpec(JSON.stringify(incoming)).role, "incoming");
  });

  it.each<[RegExp, unknown]>([
    [/spec is not an object/, null],
    [/guest name "..\/x"/, { ...boot, name: "../x" }],
    [/guest name ""/, { ...boot, name: "" }],
    [/socket is "vm1.sock"/, { ...boot, socket: "vm1.sock" }],
    [/socket path .* has 115 bytes/, { ...boot, socket: `/${"x".repeat(114)}` }],
    [/ramPath is 7/, { ...boot, ramPath: 7 }],
    [/memory size 5000 is not a multiple/, { ...boot, memoryBytes: 5000 }],
    [/memory size is 0/, { ...boot, memoryBytes: 0 }],
    [/memory size is null/, { ...boot, memoryBytes: Number.NaN }],
    [/memory size is 2199023255552/, { ...boot, memoryBytes: 2 ** 41 }],
    [/role is "source"/, { ...boot, role: "source" }],
    [/vcpus is 65/, { ...incoming, vcpus: 65 }],
    [/workload is not an object/, { ...boot, workload: undefined }],
    [/vcpus is 0/, withWorkload({ vcpus: 0 })],
    [/seed is 1.5/, withWorkload({ seed: 1.5 })],
    [/dirty rate is -1/, withWorkload({ dirtyRateBytesPerSecond: -1 })],
    [/working set is 16777217/, withWorkload({ workingSetBytes: 2 ** 24 + 1 })],
    [/DMA window is 16777216/, withWorkload({ dmaWindowBytes: 2 ** 24 })],
    [/DMA window has 5000 bytes/, withWorkload({ dmaWindowBytes: 5000 })],
    [/working set is 1048576/, withWorkload({ dmaWindowBytes: 2 ** 24 - 2 ** 19 })],
    [/mix adds up to 90 percent/, withWorkload({ mix: { zero: 30, compressible: 30, random: 30 } })],
    [/mix adds up to 110 percent/, withWorkload({ mix: { zero: 40, compressible: 30, random: 30, counted: 10 } })],
    [/mix.counted is -1/, withWorkload({ mix: { zero: 40, compressible: 30, random: 31, counted: -1 } })],
    [/mix.zero is "40"/, withWorkload({ mix: { zero: "40", compressible: 30, random: 30 } })],
  ])("is refused with %s", (reason, spec) => {
    assert.throws(() => parseProcessSpec(JSON.stringify(spec)), reason);
  });
});
