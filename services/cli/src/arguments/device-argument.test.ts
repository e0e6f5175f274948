import { assert, describe, it } from "vitest";
import { deviceOption, withDevices } from "./device-argument.ts";
import { readGuest } from "./guest-argument.ts";
import { UsageError } from "./usage-error.ts";

const read = (...texts: ReadonlyArray<string>) => deviceOption.read(texts, "--vfio");
const QEMU = readGuest("vm1=qemu:/run/vm1.qmp");

describe("a VFIO device on the line", () => {
  it("is one of a vfio-user server, or of the kernel, in each way that the kernel names it", () => {
    const specs = read(
      "vm1:vfio0=vfio-user:/run/a=b:c.sock",
      "vm1:nic-1=kernel:/dev/vfio/devices/vfio0",
      "vm1:vf=kernel:/dev/vfio/12:0000:3b:00.1",
      "vm1:held=kernel:4711:31",
    );
    assert.deepStrictEqual(specs, [
      { guest: "vm1", spec: { name: "vfio0", provider: "vfio-user", socket: "/run/a=b:c.sock" } },
      { guest: "vm1", spec: { name: "nic-1", provider: "kernel", device: "/dev/vfio/devices/vfio0" } },
      { guest: "vm1", spec: { name: "vf", provider: "kernel", device: "/dev/vfio/12:0000:3b:00.1" } },
      { guest: "vm1", spec: { name: "held", provider: "kernel", device: "4711:31" } },
    ]);
  });

  it.each([
    ["vfio0=kernel:/dev/vfio/devices/vfio0", "not GUEST:NAME="],
    ["vm1:vfio0=simulated:/run/x.sock", "not GUEST:NAME="],
    ["vm1:vfio0", "not GUEST:NAME="],
    ["vm1:vfio.0=kernel:/dev/vfio/devices/vfio0", "device name"],
    ["vm1:=kernel:/dev/vfio/devices/vfio0", "device name"],
    ["vm1:vfio0=vfio-user:", "where the device is"],
  ])("is refused as %s", (text, reason) => {
    assert.throws(() => read(text), UsageError, reason);
  });

  it("goes to its guest, in the order of the line", () => {
    const other = readGuest("vm2=qemu:/run/vm2.qmp");
    const devices = read("vm1:b=kernel:/dev/vfio/devices/vfio1", "vm1:a=vfio-user:/run/a.sock");
    const [first, second] = withDevices([QEMU, other], devices);
    assert.deepStrictEqual(first, { ...QEMU, devices: devices.map(({ spec }) => spec) } as typeof first);
    assert.deepStrictEqual(second, other);
  });

  it.each([
    [[QEMU], ["vm2:vfio0=kernel:1:2"], "guest vm2, which no --guest names"],
    [[readGuest("vm1=builtin:")], ["vm1:vfio0=kernel:1:2"], "builtin"],
    [[QEMU], ["vm1:vfio0=kernel:1:2", "vm1:vfio0=kernel:1:3"], "two devices of the name vfio0"],
    [[QEMU], Array.from({ length: 17 }, (_, n) => `vm1:vfio${n}=kernel:1:${n}`), "at most 16"],
  ])("is refused with guests %j and %j", (guests, texts, reason) => {
    assert.throws(() => withDevices(guests, read(...texts)), UsageError, reason);
  });
});
