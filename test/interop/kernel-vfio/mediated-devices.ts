/** Mediated devices, made and taken away through sysfs (Documentation/driver-api/vfio-mediated-device.rst). */
import { readdirSync, readlinkSync, writeFileSync } from "node:fs";
import { basename } from "node:path";

const PARENTS = "/sys/class/mdev_bus";
const DEVICES = "/sys/bus/mdev/devices";

/**
 * By its parent in sysfs and the type's name there. An mtty with two ports: two UARTs, whose registers and FIFOs are its state.
 * Notebooks (`notebook/`): 1 MiB of pages, 8 MiB, and one whose record of DMA cannot be reported.
 */
export type MediatedKind =
  | "mtty/mtty-2"
  | "notebook/notebook-small"
  | "notebook/notebook-large"
  | "notebook/notebook-mute";

export interface Mediated {
  readonly uuid: string;
  /** `/dev/vfio/devices/vfioN`. */
  readonly character: string;
  /** `/dev/vfio/GROUP:UUID`, as the kernel provider is given it. */
  readonly group: string;
  readonly remove: () => void;
}

let made = 0;

export const makeMediated = (kind: MediatedKind): Mediated => {
  const uuid = `${String(++made).padStart(8, "0")}-0000-4000-8000-000000000000`;
  const [parent, type] = kind.split("/");
  writeFileSync(`${PARENTS}/${parent}/mdev_supported_types/${type}/create`, uuid);
  const [character] = readdirSync(`${DEVICES}/${uuid}/vfio-dev`);
  return {
    uuid,
    character: `/dev/vfio/devices/${character}`,
    group: `/dev/vfio/${basename(readlinkSync(`${DEVICES}/${uuid}/iommu_group`))}:${uuid}`,
    remove: () => writeFileSync(`${DEVICES}/${uuid}/remove`, "1"),
  };
};
