/** Which VFIO devices this host has, and which of them can be migrated: found in sysfs, and asked. */
import { accessSync, constants, readdirSync, readlinkSync } from "node:fs";
import { basename, join } from "node:path";
import * as Effect from "effect/Effect";
import type { MigrationFeatures } from "../state-machine.ts";
import { openKernelDevice } from "./device.ts";
import { CONTAINER_PATH, IOMMUFD_PATH } from "./opening.ts";

/** Every device that is bound to a VFIO driver, as `vfio0`, ... (Linux 6.1 and later). */
const CLASS_PATH = "/sys/class/vfio-dev";
const DEVICES_PATH = "/dev/vfio/devices";

export interface FoundDevice {
  /** What to write after `kernel:` for it, in the way that this host offers. */
  readonly path: string;
  /** Its address or UUID, and the driver it is bound to. */
  readonly device: string;
  readonly driver: string;
  /** `reason`: it could not be asked; mostly since a VMM has it. */
  readonly answer:
    | { readonly _tag: "Answered"; readonly features: MigrationFeatures }
    | { readonly _tag: "NotAsked"; readonly reason: string };
}

export interface VfioOfHost {
  /** Files through which devices are opened, and what this user may do with them. */
  readonly files: ReadonlyArray<{ readonly path: string; readonly access: "usable" | "forbidden" | "absent" }>;
  readonly devices: ReadonlyArray<FoundDevice>;
}

/** Opens every device that is free for a moment, which may reset it: nobody is using it. Never fails. */
export const probeVfio: Effect.Effect<VfioOfHost> = Effect.gen(function* () {
  const files = [CONTAINER_PATH, IOMMUFD_PATH].map((path) => ({ path, access: accessTo(path) }));
  const devices = yield* Effect.forEach(entriesOf(CLASS_PATH), examine);
  return { files, devices };
});

const examine = (name: string): Effect.Effect<FoundDevice> => {
  const sysfs = join(CLASS_PATH, name, "device");
  const device = linkName(sysfs);
  const cdev = join(DEVICES_PATH, name);
  const path = accessTo(cdev) === "absent" ? `/dev/vfio/${linkName(join(sysfs, "iommu_group"))}:${device}` : cdev;
  const found = { path, device, driver: linkName(join(sysfs, "driver")) };
  return openKernelDevice({ name, device: path }).pipe(
    Effect.map(({ features }) => ({ ...found, answer: { _tag: "Answered" as const, features } })),
    Effect.catch(({ reason, errno }) =>
      Effect.succeed({ ...found, answer: { _tag: "NotAsked" as const, reason: `${reason} (${errno})` } }),
    ),
    Effect.scoped,
  );
};

/** Names in a folder; none where there is no such folder. */
const entriesOf = (folder: string): ReadonlyArray<string> => {
  try {
    return readdirSync(folder).sort();
  } catch {
    return [];
  }
};

/** The last part of where a link leads. */
const linkName = (path: string): string => {
  try {
    return basename(readlinkSync(path));
  } catch {
    return "?";
  }
};

const accessTo = (path: string): "usable" | "forbidden" | "absent" => {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return "usable";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? "absent" : "forbidden";
  }
};
