/** The VFIO devices of a builtin guest: simulated ones, each a process of its own that ends with the guest. */
import { GodwitError, type OfferedDevice } from "@godwit/protocol";
import { type DeviceError, type DeviceSpec, type DmaSpec, type SimulatedOptions, startSimulated } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";

/** What a device of a guest is. The RAM that it writes into by DMA is its guest's, at either side. */
export type BuiltinDeviceOptions = Omit<SimulatedOptions, "dma"> & {
  readonly dma?: Omit<(typeof DmaSpec)["Encoded"], "path"> | null;
};

/** A device to give to a guest. */
export interface BuiltinDevice {
  readonly options: BuiltinDeviceOptions;
  /** What differs of the device that receives its state at a destination; nothing, unless it shall fail there. */
  readonly arrival?: Partial<BuiltinDeviceOptions>;
  /** The process that it ends with; its guest's. Another one's, as hardware: whoever wants to look at it when the guest has gone. */
  readonly ownerPid?: number;
}

/** The device of a guest of this name that was here before ends with it, which takes a moment. */
const LAST_BREATH = { schedule: Schedule.spaced("100 millis"), times: 50 };

const directoryOf = (directory: string, guest: string): string => `${directory}/${guest}.vfio`;

/** Starts the devices of a guest that runs already; interruption, or a failure, leaves none. */
export const startDevices = (
  guest: { readonly name: string; readonly pid: number; readonly directory: string; readonly ram: string },
  devices: ReadonlyArray<BuiltinDevice>,
): Effect.Effect<ReadonlyArray<DeviceSpec>, GodwitError> =>
  Effect.forEach(
    devices,
    ({ options, arrival, ownerPid = guest.pid }) =>
      startSimulated(withRam(options, guest.ram), directoryOf(guest.directory, guest.name), { ownerPid }).pipe(
        Effect.retry({ ...LAST_BREATH, while: ({ errno }) => errno === "EEXIST" }),
        Effect.map(
          ({ spec }): DeviceSpec => ({
            ...spec,
            model: JSON.stringify({ ...options, faults: [], ...arrival, role: "incoming" }),
          }),
        ),
        Effect.mapError(failed),
      ),
    { concurrency: 4 },
  );

/** What an incoming guest needs to take these in: their like, fresh. */
export const incomingDevices = (
  offered: ReadonlyArray<OfferedDevice>,
): Effect.Effect<ReadonlyArray<BuiltinDevice>, GodwitError> =>
  Effect.forEach(offered, ({ device, model }) =>
    Effect.try({
      // Checked when it is started, field by field.
      try: () => ({ options: { ...JSON.parse(model ?? ""), name: device, role: "incoming" } as BuiltinDeviceOptions }),
      catch: () =>
        new GodwitError({
          code: "incompatible",
          actor: "loader",
          side: "destination",
          step: "start the devices",
          reason: `a builtin guest can be given simulated devices only; of device ${device} no model was offered`,
        }),
    }),
  );

/** Whatever file a model from elsewhere names: a device has its own guest's memory, and no other. */
const withRam = ({ dma, ...options }: BuiltinDeviceOptions, path: string): SimulatedOptions =>
  dma == null ? options : { ...options, dma: { ...dma, path } };

const failed = ({ message }: DeviceError): GodwitError =>
  new GodwitError({ code: "device-failed", actor: "guest", step: "start the devices", reason: message });
