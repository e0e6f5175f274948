/**
 * What every message of vfio-user begins with (QEMU's docs/interop/vfio-user.rst; libvfio-user's include/vfio-user.h). Little-endian.
 *
 *      0 u16 message id     2 u16 command     4 u32 bytes of the frame, this header included
 *      8 u32 flags: bits 0-3 type (0 command, 1 reply), 0x10 no reply wanted, 0x20 error     12 u32 errno, in an error reply
 *
 * Commands go both ways on one socket: a server may ask for memory (DMA_READ, DMA_WRITE) while its client waits for a reply. Only the
 * type bits tell a command from a reply; ids of the two directions have nothing to do with each other.
 */

export const HEADER_BYTES = 16;
/**
 * Bytes of stream, region or bitmap in one message, `max_data_xfer_size`: libvfio-user's own value, and the most that it takes whatever
 * its client says.
 */
export const TRANSFER_BYTES_MAX = 1024 * 1024;
/** Bytes of the longest frame: a full transfer, with room for what stands in front of it; libvfio-user's limit is 8 KiB more than a transfer as well. */
export const FRAME_BYTES_MAX = TRANSFER_BYTES_MAX + 8192;
/** The highest errno that Linux can return (MAX_ERRNO of include/linux/err.h). */
const ERRNO_MAX = 4095;

/** By the names used here; the numbers are the wire's. */
export const COMMANDS = {
  version: 1,
  "dma-map": 2,
  "dma-unmap": 3,
  "device-info": 4,
  "region-info": 5,
  "region-read": 9,
  "region-write": 10,
  /** From server to client. */
  "dma-read": 11,
  /** From server to client. */
  "dma-write": 12,
  reset: 13,
  feature: 16,
  "mig-data-read": 17,
  "mig-data-write": 18,
  /** Ours, not vfio-user's; see message.ts. "GW" as a number: out of the way of commands to come. */
  "precopy-info": 0x4757,
} as const;
export type CommandName = keyof typeof COMMANDS;

export interface Header {
  readonly id: number;
  readonly command: number;
  readonly type: "command" | "reply";
  /** Bytes of the whole frame. */
  readonly frameBytes: number;
  /** A command that must not be answered. */
  readonly noReply: boolean;
  /** 0: no error. Only replies have one. */
  readonly errno: number;
}

/** Why bytes are no message; shown to the operator, never thrown. */
export interface Malformed {
  readonly kind: "malformed";
  readonly reason: string;
}
export const malformed = (reason: string): Malformed => ({ kind: "malformed", reason });

const TYPE_MASK = 0xf;
const NO_REPLY = 0x10;
const ERROR = 0x20;

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** A frame with its header written, and a body of zeros. */
export const allocateFrame = (
  type: Header["type"],
  id: number,
  command: number,
  bodyBytes: number,
): { readonly frame: Uint8Array; readonly body: Uint8Array; readonly view: DataView } => {
  const frame = new Uint8Array(HEADER_BYTES + bodyBytes);
  const view = viewOf(frame);
  view.setUint16(0, id, true);
  view.setUint16(2, command, true);
  view.setUint32(4, frame.length, true);
  view.setUint32(8, type === "reply" ? 1 : 0, true);
  const body = frame.subarray(HEADER_BYTES);
  return { frame, body, view: viewOf(body) };
};

/** The refusal of a command, whatever the command was. `errno` is Linux's number, not 0. */
export const encodeError = (to: { readonly id: number; readonly command: number }, errno: number): Uint8Array => {
  const { frame } = allocateFrame("reply", to.id, to.command, 0);
  viewOf(frame).setUint32(8, 1 | ERROR, true);
  viewOf(frame).setUint32(12, errno, true);
  return frame;
};

/** Reads a header from the first HEADER_BYTES of `bytes`. Flags that vfio-user does not define are passed over. */
export const decodeHeader = (bytes: Uint8Array): Header | Malformed => {
  if (bytes.length < HEADER_BYTES) return malformed(`${bytes.length} bytes are less than a header`);
  const view = viewOf(bytes);
  const frameBytes = view.getUint32(4, true);
  if (frameBytes < HEADER_BYTES || frameBytes > FRAME_BYTES_MAX) return malformed(`a message of ${frameBytes} bytes`);
  const flags = view.getUint32(8, true);
  const type = flags & TYPE_MASK;
  if (type > 1) return malformed(`a message of type ${type}`);
  const failed = type === 1 && (flags & ERROR) !== 0;
  const errno = failed ? view.getUint32(12, true) : 0;
  if (failed && (errno === 0 || errno > ERRNO_MAX)) return malformed(`an error reply with errno ${errno}`);
  return {
    id: view.getUint16(0, true),
    command: view.getUint16(2, true),
    type: type === 1 ? "reply" : "command",
    frameBytes,
    noReply: type === 0 && (flags & NO_REPLY) !== 0,
    errno,
  };
};

/** Takes a whole frame apart: its length must be the header's, its direction `type`. */
export const decodeFrame = (
  frame: Uint8Array,
  type: Header["type"],
): { readonly kind: "frame"; readonly header: Header; readonly body: Uint8Array } | Malformed => {
  const header = decodeHeader(frame);
  if ("kind" in header) return header;
  if (header.frameBytes !== frame.length)
    return malformed(`${frame.length} bytes, the header says ${header.frameBytes}`);
  if (header.type !== type) return malformed(`a ${header.type} where a ${type} belongs`);
  return { kind: "frame", header, body: frame.subarray(HEADER_BYTES) };
};

const NAMES = new Map(Object.entries(COMMANDS).map(([name, number]) => [number as number, name as CommandName]));

/** null: none of COMMANDS. */
export const commandName = (command: number): CommandName | null => NAMES.get(command) ?? null;
