import { describe, expect, it } from "vitest";
import { findingsOf } from "./vfio-findings.ts";

const FILES = [
  { path: "/dev/vfio/vfio", access: "forbidden" },
  { path: "/dev/iommu", access: "absent" },
] as const;
const DEVICE = { path: "/dev/vfio/devices/vfio0", device: "0000:3b:00.1", driver: "mlx5_vfio_pci" };

describe("what doctor says of VFIO", () => {
  it("is one plain line where there is none", () => {
    const files = FILES.map(({ path }) => ({ path, access: "absent" as const }));
    expect(findingsOf({ files, devices: [] })).toEqual([expect.objectContaining({ what: "VFIO", state: "absent" })]);
  });

  it("tells the files apart from devices that are not there", () => {
    const findings = findingsOf({ files: FILES, devices: [] });
    expect(findings.map(({ what, state }) => [what, state])).toEqual([
      ["/dev/vfio/vfio", "absent"],
      ["/dev/iommu", "absent"],
      ["VFIO devices", "absent"],
    ]);
    expect(findings[0]?.detail).toContain("may not open it");
  });

  it("names what a device can do, what it cannot, and why it was not asked", () => {
    const device = (features: { stopCopy: boolean; p2p: boolean; preCopy: boolean }) =>
      findingsOf({ files: [], devices: [{ ...DEVICE, answer: { _tag: "Answered", features } }] })[0];
    expect(device({ stopCopy: true, p2p: false, preCopy: true })).toEqual({
      what: DEVICE.path,
      state: "works",
      detail: "0000:3b:00.1, driver mlx5_vfio_pci; can be migrated: STOP_COPY, PRE_COPY",
    });
    expect(device({ stopCopy: false, p2p: false, preCopy: false })?.state).toBe("absent");
    const busy = { ...DEVICE, answer: { _tag: "NotAsked", reason: "it is in use (EBUSY)" } as const };
    expect(findingsOf({ files: [], devices: [busy] })[0]?.detail).toContain("it is in use (EBUSY)");
  });
});
