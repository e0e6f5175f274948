/**
 * Whether the devices of a guest hold at the destination what they held when they were stopped. Judged from outside the migration: each
 * simulated device tells the digest of all its bytes when it was saved, and of what was loaded into it. The devices of the source must
 * still be there, so they may not end with their guest.
 */
import type { GuestSpec } from "@godwit/guest";
import { GodwitError } from "@godwit/protocol";
import { type DeviceError, diagnose, type SimulatedDiagnosis } from "@godwit/vfio";
import * as Effect from "effect/Effect";

type Devices = NonNullable<GuestSpec["devices"]>;

/** What one device was, and is. */
export interface CheckedDevice {
  readonly device: string;
  /** SHA-256 of the state that the source saved, and of the one that the destination loaded; null: there was none. */
  readonly saved: string | null;
  readonly loaded: string | null;
  /** Of the configuration space. */
  readonly "config-equal": boolean;
}

export const isEqual = ({ saved, loaded, "config-equal": config }: CheckedDevice): boolean =>
  saved !== null && saved === loaded && config;

/** Fails when a device cannot be asked; one that is missing at the destination is no failure, it is not equal. */
export const checkDevices = (
  source: Devices,
  destination: Devices,
): Effect.Effect<ReadonlyArray<CheckedDevice>, GodwitError> =>
  Effect.forEach(source, (device) =>
    Effect.gen(function* () {
      const before = yield* look(device);
      const arrived = destination.find(({ name }) => name === device.name);
      const after = arrived === undefined ? null : yield* look(arrived);
      return {
        device: device.name,
        saved: before?.saved?.digest ?? null,
        loaded: after?.loaded?.digest ?? null,
        "config-equal": before !== null && before.configDigest === after?.configDigest,
      };
    }),
  );

const look = (device: Devices[number]): Effect.Effect<SimulatedDiagnosis | null, GodwitError> =>
  device.provider === "simulated" ? Effect.mapError(diagnose(device), failed) : Effect.succeed(null);

const failed = ({ message }: DeviceError): GodwitError =>
  new GodwitError({ code: "verification-failed", actor: "cli", step: "look at the devices", reason: message });
