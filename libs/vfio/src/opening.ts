/** From a device's spec to the device. */
import type * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { DeviceError, VfioDevice } from "./device.ts";
import type { DeviceSpec } from "./device-spec.ts";
import { openKernelDevice } from "./kernel-device/device.ts";
import { openSimulated } from "./simulated/open.ts";
import { openVfioUser } from "./vfio-user/device.ts";

/** Opens a device with the provider that its spec names; the scope's end closes it. What it was in stays: ask for its state first. */
export const openDevice = (spec: DeviceSpec): Effect.Effect<VfioDevice, DeviceError, Scope.Scope> => {
  switch (spec.provider) {
    case "simulated":
      return openSimulated(spec);
    case "vfio-user":
      return openVfioUser(spec);
    case "kernel":
      return openKernelDevice(spec);
  }
};
