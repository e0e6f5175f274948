/** `--vfio vm1:vfio0=vfio-user:/run/vfio0.sock`: VFIO devices that are there, of QEMU guests of a node. */
import { resolve } from "node:path";
import type { GuestSpec } from "@godwit/guest";
import { DEVICES_MAX, DeviceName } from "@godwit/protocol";
import * as Schema from "effect/Schema";
import type { GuestArgument } from "./guest-argument.ts";
import type { Option } from "./option.ts";
import { UsageError } from "./usage-error.ts";

type DeviceSpec = NonNullable<GuestSpec["devices"]>[number];

/** A device, and the guest that it belongs to. */
export interface DeviceArgument {
  readonly guest: string;
  readonly spec: DeviceSpec;
}

export const deviceOption: Option<ReadonlyArray<DeviceArgument>> = {
  what: "a VFIO device of a QEMU guest, may be repeated; see below",
  value: "GUEST:NAME=PROVIDER:WHERE",
  repeatable: true,
  shownDefault: null,
  read: (texts, name) => texts.map((text) => readDevice(text, name)),
};

export const DEVICE_HELP = `VFIO devices of QEMU guests, under the same NAME at both nodes:
  GUEST:NAME=vfio-user:SOCKET                      a device in a process that serves vfio-user
  GUEST:NAME=kernel:/dev/vfio/devices/vfio0        a device of the kernel by its character device,
  GUEST:NAME=kernel:/dev/vfio/12:0000:3b:00.1      by its group,
  GUEST:NAME=kernel:PID:FD                         or as the VMM of that process id holds it open
`;

const isDeviceName = Schema.is(DeviceName);

const readDevice = (text: string, name: string): DeviceArgument => {
  const [, guest = "", device = "", provider, where = ""] =
    /^([^:=]*):([^=]*)=(vfio-user|kernel):(.*)$/.exec(text) ?? [];
  if (provider === undefined) {
    throw new UsageError(
      `${name} is ${JSON.stringify(text)}, not GUEST:NAME=vfio-user:SOCKET or GUEST:NAME=kernel:DEVICE`,
      "write for example vm1:vfio0=vfio-user:/run/vm1-vfio0.sock or vm1:vfio0=kernel:/dev/vfio/devices/vfio0",
    );
  }
  if (!isDeviceName(device)) {
    throw new UsageError(
      `${name}: device name ${JSON.stringify(device)} is not 1 to 32 letters, digits, dashes or underscores`,
    );
  }
  if (where === "") throw new UsageError(`${name}: ${JSON.stringify(text)} does not say where the device is`);
  return provider === "vfio-user"
    ? { guest, spec: { name: device, provider: "vfio-user", socket: resolve(where) } }
    : { guest, spec: { name: device, provider: "kernel", device: where } };
};

/** Gives the guests their devices. Throws a UsageError for a device of no QEMU guest, for one named twice, and for too many. */
export const withDevices = (
  guests: ReadonlyArray<GuestArgument>,
  devices: ReadonlyArray<DeviceArgument>,
): ReadonlyArray<GuestArgument> => {
  for (const { guest, spec } of devices) {
    const owner = guests.find(({ name }) => name === guest);
    if (owner === undefined) throw new UsageError(`device ${spec.name} is of guest ${guest}, which no --guest names`);
    if (owner.driver === "builtin") {
      throw new UsageError(
        `guest ${guest} is builtin, and can have simulated devices only`,
        `write for example --guest ${guest}=builtin:vfio=2x300MB`,
      );
    }
  }
  return guests.map((guest) => {
    const own = devices.flatMap(({ guest: owner, spec }) => (owner === guest.name ? [spec] : []));
    const twice = own.find(({ name }, index) => own.findIndex((other) => other.name === name) !== index);
    if (twice !== undefined) throw new UsageError(`guest ${guest.name} has two devices of the name ${twice.name}`);
    if (own.length > DEVICES_MAX)
      throw new UsageError(`guest ${guest.name} has ${own.length} devices, at most ${DEVICES_MAX} are moved`);
    return own.length === 0 || guest.driver === "builtin" ? guest : { ...guest, devices: own };
  });
};
