/** Where a simulated device keeps its files: `<directory>/<name>.device.sock` and `.device.log`. */
import { join } from "node:path";
import type { SimulatedSpec } from "./spec.ts";

export interface DeviceFiles {
  readonly socket: string;
  /** Its lock says that the device of this name lives. It stays behind, to be read. */
  readonly log: string;
}

/** The longest path of a unix socket, bytes: sockaddr_un has 108 with the closing zero. */
export const SOCKET_PATH_BYTES_MAX = 107;

export const filesOf = (directory: string, name: string): DeviceFiles => ({
  socket: join(directory, `${name}.device.sock`),
  log: join(directory, `${name}.device.log`),
});

/** What the device's process is started with; checked by its starter. */
export interface ProcessSpec extends DeviceFiles {
  readonly device: SimulatedSpec;
  /** The process that starts it. */
  readonly starterPid: number;
  /** The process with which it ends, such as the guest's; the starter if it is that. */
  readonly ownerPid: number;
}

/** What the process says to its starter, in one line of JSON. */
export type StartReport =
  | { readonly ready: true; readonly pid: number }
  | { readonly ready: false; readonly errno: string; readonly reason: string };
