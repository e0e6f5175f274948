/** Which VFIO devices this host has for `--device ...=kernel:...`. None is no obstacle: most guests have none. */
import { type FoundDevice, type MigrationFeatures, probeVfio, type VfioOfHost } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import { absent, type Finding, works } from "./finding.ts";

const ACCESS = {
  usable: "works",
  forbidden: "this user may not open it; run as root, or give the user the device files",
  absent: "not there; load the kernel's modules vfio_iommu_type1 and vfio-pci, or iommufd",
} as const;

const fileFinding = ({ path, access }: VfioOfHost["files"][number]): Finding =>
  (access === "usable" ? works : absent)(path, ACCESS[access]);

const featureNames = ({ stopCopy, p2p, preCopy }: MigrationFeatures): string =>
  [stopCopy ? "STOP_COPY" : "", p2p ? "P2P" : "", preCopy ? "PRE_COPY" : ""].filter(Boolean).join(", ");

const deviceFinding = ({ path, device, driver, answer }: FoundDevice): Finding => {
  const who = `${device}, driver ${driver}`;
  if (answer._tag === "NotAsked") return absent(path, `${who}; not asked for its features: ${answer.reason}`);
  if (!answer.features.stopCopy) return absent(path, `${who}; cannot be migrated: its driver has no STOP_COPY`);
  return works(path, `${who}; can be migrated: ${featureNames(answer.features)}`);
};

export const findingsOf = ({ files, devices }: VfioOfHost): ReadonlyArray<Finding> => {
  const usable = files.some(({ access }) => access !== "absent");
  if (devices.length > 0) return [...files.map(fileFinding), ...devices.map(deviceFinding)];
  if (!usable) return [absent("VFIO", "this kernel has no VFIO loaded; needed only to move real devices")];
  return [...files.map(fileFinding), absent("VFIO devices", "no device of this host is bound to a VFIO driver")];
};

export const vfioFindings: Effect.Effect<ReadonlyArray<Finding>> = Effect.map(probeVfio, findingsOf);
