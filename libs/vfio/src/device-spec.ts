/** How a node finds a device of one of its guests. */
import { DeviceName } from "@godwit/protocol";
import * as Schema from "effect/Schema";

export const DeviceSpec = Schema.Union([
  /** A device of ours in a process of its own, which listens on `socket`. `model`: its like, as JSON, for whoever starts one to receive its state. */
  Schema.Struct({
    name: DeviceName,
    provider: Schema.Literal("simulated"),
    socket: Schema.String,
    model: Schema.optionalKey(Schema.String),
  }),
  /** A vfio-user server, which listens on `socket`. */
  Schema.Struct({ name: DeviceName, provider: Schema.Literal("vfio-user"), socket: Schema.String }),
  /**
   * A device of the kernel: `/dev/vfio/devices/vfioN`; a group with the device's name in it, `/dev/vfio/12:0000:3b:00.1` (or an
   * mdev's UUID); or one that a VMM holds, `pid:FD` of its process.
   */
  Schema.Struct({ name: DeviceName, provider: Schema.Literal("kernel"), device: Schema.String }),
]);
export type DeviceSpec = typeof DeviceSpec.Type;
