import * as Effect from "effect/Effect";
import { describe, expect, it } from "vitest";
import { openKernelDevice } from "./device.ts";
import { parseDevicePath } from "./device-path.ts";

describe("the name of a kernel device", () => {
  it("is a file of its own, a group and a device in it, or a process and its descriptor", () => {
    expect(parseDevicePath("/dev/vfio/devices/vfio3")).toEqual({ _tag: "Cdev", path: "/dev/vfio/devices/vfio3" });
    expect(parseDevicePath("/dev/vfio/12:0000:3b:00.1")).toEqual({
      _tag: "Group",
      path: "/dev/vfio/12",
      device: "0000:3b:00.1",
    });
    expect(parseDevicePath("/dev/vfio/noiommu-0:x")).toEqual({
      _tag: "Group",
      path: "/dev/vfio/noiommu-0",
      device: "x",
    });
    expect(parseDevicePath("4711:33")).toEqual({ _tag: "Borrowed", pid: 4711, fd: 33 });
  });

  it("is nothing else", () => {
    for (const text of ["", "vfio0", "/dev/vfio/12", "/dev/vfio/12:", "/dev/vfio/12:a/b", "/dev/null", "12", "-1:3"]) {
      expect(parseDevicePath(text), text).toBeNull();
    }
  });
});

describe("a kernel device that cannot be opened", () => {
  const failureOf = (device: string) =>
    Effect.runPromise(Effect.flip(Effect.scoped(openKernelDevice({ name: "nic", device }))));

  it("says what was named, and how to name one", async () => {
    const error = await failureOf("vfio0");
    expect([error.device, error.operation, error.errno]).toEqual(["nic", "open", "EINVAL"]);
    expect(error.message).toContain('"vfio0" names no VFIO device');
  });

  it("says that there is no such process, or that its descriptor is something else", async () => {
    expect(await failureOf(`${2 ** 22}:3`)).toMatchObject({ operation: "open", errno: "ESRCH" });
    const other = await failureOf(`${process.pid}:2`);
    expect(other.errno).toBe("ENOTTY");
    expect(other.reason).toContain("no VFIO device");
  });
});
