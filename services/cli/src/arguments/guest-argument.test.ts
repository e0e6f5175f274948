import { assert, describe, it } from "vitest";
import { readGuest } from "./guest-argument.ts";
import { UsageError } from "./usage-error.ts";

describe("a guest on the line", () => {
  it("is a QEMU by its monitor's socket, whose path may hold anything", () => {
    assert.deepStrictEqual(readGuest("vm1=qemu:/run/a=b,c:d.qmp"), {
      driver: "qemu",
      name: "vm1",
      qmp: "/run/a=b,c:d.qmp",
    });
  });

  it("is a builtin one by its settings, each with a default", () => {
    assert.deepStrictEqual(readGuest("vm2=builtin:memory=512MiB,dirty-rate=10MiB/s,vcpus=1"), {
      driver: "builtin",
      name: "vm2",
      options: { name: "vm2", memoryBytes: 512 * 1024 ** 2, dirtyRateBytesPerSecond: 10 * 1024 ** 2, vcpus: 1 },
    });
    for (const word of ["vm2=builtin", "vm2=builtin:"]) {
      assert.deepStrictEqual(readGuest(word), {
        driver: "builtin",
        name: "vm2",
        options: { name: "vm2", memoryBytes: 256 * 1024 ** 2 },
      });
    }
  });

  it("may have simulated VFIO devices, numbered through", () => {
    const guest = readGuest("vm2=builtin:vfio=2x300MB,vfio=20MB");
    const devices = guest.driver === "builtin" ? (guest.options.devices ?? []) : [];
    assert.deepStrictEqual(
      devices.map(({ options }) => [options.name, options.stateBytes]),
      [
        ["vfio0", 300e6],
        ["vfio1", 300e6],
        ["vfio2", 20e6],
      ],
    );
  });

  it.each([
    ["vm1", "not NAME=qemu:SOCKET"],
    ["vm1=xen:foo", "not NAME=qemu:SOCKET"],
    ["=builtin:", "guest name"],
    ["vm.1=builtin:", "guest name"],
    ["vm1=qemu:", "no monitor socket"],
    ["vm1=builtin:memory=lots", "is not a size"],
    ["vm1=builtin:color=red", "color=red"],
    ["vm1=builtin:vfio=some", "guest vm1: vfio"],
  ])("is refused as %s", (word, reason) => {
    assert.throws(() => readGuest(word), UsageError, reason);
  });
});
