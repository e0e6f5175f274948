/** The three ways to name a device of the kernel; see `DeviceSpec`. */
export type DevicePath =
  | { readonly _tag: "Cdev"; readonly path: string }
  | { readonly _tag: "Group"; readonly path: string; readonly device: string }
  | { readonly _tag: "Borrowed"; readonly pid: number; readonly fd: number };

const CDEV = /^\/dev\/vfio\/devices\/[^/:]+$/;
/** A group without an IOMMU is called `noiommu-3`. The device's name has colons of its own: `0000:3b:00.1`. */
const GROUP = /^(\/dev\/vfio\/(?:noiommu-)?\d+):([^/]+)$/;
const BORROWED = /^(\d{1,10}):(\d{1,10})$/;

/** The ways, for messages. */
export const DEVICE_PATH_FORMS =
  "/dev/vfio/devices/vfio0, /dev/vfio/12:0000:3b:00.1 (a group and a device in it), or 4711:33 (a process and its descriptor)";

/** null: the text is none of the three. */
export const parseDevicePath = (text: string): DevicePath | null => {
  if (CDEV.test(text)) return { _tag: "Cdev", path: text };
  const group = GROUP.exec(text);
  if (group !== null) return { _tag: "Group", path: group[1]!, device: group[2]! };
  const borrowed = BORROWED.exec(text);
  return borrowed === null ? null : { _tag: "Borrowed", pid: Number(borrowed[1]), fd: Number(borrowed[2]) };
};
