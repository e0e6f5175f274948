/** The client's side of a simulated device's process. */
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { DeviceError } from "../device.ts";
import type { DeviceSpec } from "../device-spec.ts";
import { openVfioUser, type VfioUserOptions } from "../vfio-user/device.ts";
import type { SimulatedDevice } from "./in-process.ts";
import { diagnose } from "./judge.ts";

/** Opens a simulated device, and takes it from whoever had it open. */
export const openSimulated = (
  spec: Extract<DeviceSpec, { readonly provider: "simulated" }>,
  options?: VfioUserOptions,
): Effect.Effect<SimulatedDevice, DeviceError, Scope.Scope> =>
  Effect.map(openVfioUser(spec, options), (device) => ({ ...device, diagnosis: diagnose(spec) }));
