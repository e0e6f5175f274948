/** The PCI configuration space: what a guest has set in it must be the same at the destination. */
import { DeviceFailure } from "./failure.ts";
import type { SimulatedSpec } from "./spec.ts";

/** Of a conventional PCI function, bytes. */
export const CONFIG_BYTES = 256;
/** Vendor and device of ours: Red Hat's vendor id, and a device id that QEMU uses for nothing. */
const VENDOR_ID = 0x1b36;
const DEVICE_ID = 0x00fd;
/** Vendor and device id are the device's own and cannot be written. */
const IDENTITY_BYTES = 4;
const COMMAND = 0x04;
const BAR0 = 0x10;
/** A command register that lets the device decode memory and master the bus, as a guest's driver sets it. */
const DRIVEN_COMMAND = 0x0006;

export interface ConfigSpace {
  readonly read: () => Buffer;
  /** From `offset` on. Throws EINVAL for what goes beyond the end, or is of another device. */
  readonly write: (bytes: Uint8Array, offset?: number) => void;
  /** As at the start of the device. */
  readonly reset: () => void;
}

export const makeConfigSpace = ({ role, seed }: Pick<SimulatedSpec, "role" | "seed">): ConfigSpace => {
  const space = Buffer.alloc(CONFIG_BYTES);
  const reset = (): void => {
    space.fill(0);
    space.writeUInt16LE(VENDOR_ID, 0);
    space.writeUInt16LE(DEVICE_ID, 2);
    // A device that waits for its state was set up by no guest yet.
    if (role === "incoming") return;
    space.writeUInt16LE(DRIVEN_COMMAND, COMMAND);
    space.writeUInt32LE((seed & 0xffff) * 65_536, BAR0);
  };
  reset();
  return {
    read: () => Buffer.from(space),
    write: (bytes, offset = 0) => {
      const end = offset + bytes.length;
      if (end > CONFIG_BYTES)
        throw new DeviceFailure("EINVAL", `${end} bytes of a configuration space of ${CONFIG_BYTES}`);
      const identity = bytes.subarray(0, Math.max(0, IDENTITY_BYTES - offset));
      if (space.compare(identity, 0, identity.length, offset, offset + identity.length) !== 0) {
        throw new DeviceFailure("EINVAL", "the configuration is of another device: its vendor or device id differs");
      }
      space.set(bytes, offset);
    },
    reset,
  };
};
