/**
 * The data_fd of a device, from the SET that gave it to the one that ended it.
 *
 *     RUNNING -> PRE_COPY          a new stream
 *     PRE_COPY -> STOP_COPY        the same stream goes on
 *     RUNNING, STOP -> STOP_COPY   a new stream
 *     ... -> RESUMING              a new stream, to be written
 *     ... -> RUNNING, STOP         the stream is dead: its descriptor answers ENODEV to everything, and is closed here
 */
import { HostError, type IoctlThread } from "@godwit/host";
import type { PrecopyInfo } from "../device.ts";
import type { DeviceState } from "../state-machine.ts";
import { closeDescriptor, readSome, writeAll } from "./descriptor.ts";
import { getPrecopyInfo, precopyInfoOf, VFIO } from "./uapi.ts";

/** One read or write, bytes: the driver copies so much while it holds its lock, in one of the few threads that Node has for files. */
export const TRANSFER_BYTES_MAX = 1024 * 1024;

export interface MigrationStream {
  /** The device went to `state`, by a SET that gave `dataFd`; null: it gave none. */
  readonly moved: (state: DeviceState, dataFd: number | null) => Promise<void>;
  readonly close: () => Promise<void>;
  /** 0: in STOP_COPY the end, in PRE_COPY nothing for now. */
  readonly read: (into: Uint8Array) => Promise<number>;
  readonly write: (bytes: Uint8Array) => Promise<void>;
  /** null: the driver cannot tell. */
  readonly precopyInfo: () => Promise<PrecopyInfo | null>;
}

const PRECOPY: ReadonlySet<DeviceState> = new Set<DeviceState>(["PRE_COPY", "PRE_COPY_P2P"]);
const STREAMING: ReadonlySet<DeviceState> = new Set<DeviceState>([...PRECOPY, "STOP_COPY", "RESUMING"]);

export const makeMigrationStream = (thread: IoctlThread): MigrationStream => {
  let fd: number | null = null;
  let state: DeviceState = "RUNNING";

  const close = async (): Promise<void> => {
    const dead = fd;
    fd = null;
    if (dead !== null) await closeDescriptor(dead);
  };
  const moved = async (to: DeviceState, dataFd: number | null): Promise<void> => {
    state = to;
    if (dataFd === null && STREAMING.has(to)) return;
    await close();
    fd = dataFd;
  };
  const opened = (operation: string): number => {
    if (fd !== null) return fd;
    throw new HostError(operation, "EBADF", { detail: `this opening of the device has no stream (${state})` });
  };
  const read = async (into: Uint8Array): Promise<number> => {
    // Asking for nothing gives 0, which would read as the end.
    if (into.length === 0) throw new HostError("read", "EINVAL", { detail: "asked for 0 bytes" });
    try {
      return await readSome(opened("read"), into.subarray(0, TRANSFER_BYTES_MAX), null);
    } catch (error) {
      // In STOP_COPY there is no "for now": taken for the end, it would cut the stream.
      if (error instanceof HostError && error.errno === "ENOMSG" && PRECOPY.has(state)) return 0;
      throw error;
    }
  };
  const write = async (bytes: Uint8Array): Promise<void> => writeAll(opened("write"), bytes, null, TRANSFER_BYTES_MAX);
  const precopyInfo = async (): Promise<PrecopyInfo | null> => {
    const call = { fd: opened("precopy info"), name: "VFIO_MIG_GET_PRECOPY_INFO", request: VFIO.MIG_GET_PRECOPY_INFO };
    try {
      return precopyInfoOf((await thread.call({ ...call, argument: getPrecopyInfo() })).argument);
    } catch (error) {
      if (error instanceof HostError && error.errno === "ENOTTY") return null;
      throw error;
    }
  };
  return { moved, close, read, write, precopyInfo };
};
