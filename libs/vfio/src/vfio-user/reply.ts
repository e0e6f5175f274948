/**
 * Replies as frames. The decoder takes one whole frame, returns a reason instead of throwing, and reads only inside it; what it
 * returns are views of it. A body may be longer than what it says of itself: libvfio-user answers a short read of the migration stream
 * with a message of the full asked length, of which only `size` bytes mean anything.
 */
import {
  DMA_UNMAP_BYTES,
  decodeDmaUnmap,
  decodeVersion,
  readU64,
  versionBody,
  writeDmaUnmap,
  writeU64,
} from "./body.ts";
import {
  allocateFrame,
  COMMANDS,
  type CommandName,
  commandName,
  decodeFrame,
  encodeError,
  type Malformed,
  malformed,
  viewOf,
} from "./header.ts";
import type { Reply } from "./message.ts";

/** An answer as a frame; `id` is the request's. */
export const encodeReply = (id: number, reply: Reply): Uint8Array => {
  if (reply.kind === "error") return encodeError({ id, command: reply.command }, reply.errno);
  const command = COMMANDS[reply.kind];
  const allocate = (bodyBytes: number) => allocateFrame("reply", id, command, bodyBytes);
  switch (reply.kind) {
    case "version": {
      const version = versionBody(reply);
      const { frame, body } = allocate(version.length);
      body.set(version);
      return frame;
    }
    case "dma-unmap": {
      const { frame, view } = allocate(DMA_UNMAP_BYTES);
      writeDmaUnmap(view, reply);
      return frame;
    }
    case "device-info": {
      const { frame, view } = allocate(16);
      view.setUint32(0, 16, true);
      view.setUint32(4, reply.flags, true);
      view.setUint32(8, reply.regions, true);
      view.setUint32(12, reply.irqs, true);
      return frame;
    }
    case "region-info": {
      const { frame, view } = allocate(32);
      view.setUint32(0, 32, true);
      view.setUint32(4, reply.flags, true);
      view.setUint32(8, reply.region, true);
      writeU64(view, 16, reply.bytes);
      writeU64(view, 24, reply.fdOffset);
      return frame;
    }
    case "region-read":
    case "region-write": {
      const data = reply.kind === "region-read" ? reply.data : new Uint8Array(0);
      const { frame, body, view } = allocate(16 + data.length);
      writeU64(view, 0, reply.offset);
      view.setUint32(8, reply.region, true);
      view.setUint32(12, reply.kind === "region-read" ? data.length : reply.count, true);
      body.set(data, 16);
      return frame;
    }
    case "feature": {
      const { frame, body, view } = allocate(8 + reply.data.length);
      view.setUint32(0, 8 + reply.data.length, true);
      view.setUint32(4, (reply.index | reply.operations) >>> 0, true);
      body.set(reply.data, 8);
      return frame;
    }
    case "mig-data-read": {
      const { frame, body, view } = allocate(8 + reply.data.length);
      view.setUint32(0, 8 + reply.data.length, true);
      view.setUint32(4, reply.data.length, true);
      body.set(reply.data, 8);
      return frame;
    }
    case "precopy-info": {
      const { frame, view } = allocate(16);
      writeU64(view, 0, reply.initialBytes);
      writeU64(view, 8, reply.dirtyBytes);
      return frame;
    }
    case "dma-map":
    case "reset":
    case "mig-data-write":
      return allocate(0).frame;
  }
};

/** What stands before the data in the reply to a read of the migration stream, so that data which is long need not be copied into a frame. */
export const encodeReadHead = (id: number, dataBytes: number): Uint8Array => {
  const { frame, view } = allocateFrame("reply", id, COMMANDS["mig-data-read"], 8);
  view.setUint32(0, 8 + dataBytes, true);
  view.setUint32(4, dataBytes, true);
  viewOf(frame).setUint32(4, frame.length + dataBytes, true);
  return frame;
};

/** Reads the reply in a frame. */
export const decodeReply = (frame: Uint8Array): Reply | Malformed => {
  const decoded = decodeFrame(frame, "reply");
  if (decoded.kind === "malformed") return decoded;
  const { command, errno } = decoded.header;
  if (errno !== 0) return { kind: "error", command, errno };
  const name = commandName(command);
  return name === null ? malformed(`a reply to unknown command ${command}`) : replyOf(name, decoded.body);
};

/** Bytes of the fixed part of each body. */
const BODY_BYTES: Readonly<Record<CommandName, number>> = {
  version: 4,
  "dma-map": 0,
  "dma-unmap": DMA_UNMAP_BYTES,
  "device-info": 16,
  "region-info": 32,
  "region-read": 16,
  "region-write": 16,
  "dma-read": 16,
  "dma-write": 16,
  reset: 0,
  feature: 8,
  "mig-data-read": 8,
  "mig-data-write": 0,
  "precopy-info": 16,
};

const replyOf = (name: CommandName, body: Uint8Array): Reply | Malformed => {
  if (body.length < BODY_BYTES[name]) return malformed(`a reply to ${name} with ${body.length} bytes`);
  const view = viewOf(body);
  switch (name) {
    case "version":
      return decodeVersion(body);
    case "dma-unmap":
      return decodeDmaUnmap(body);
    case "device-info":
      return {
        kind: name,
        flags: view.getUint32(4, true),
        regions: view.getUint32(8, true),
        irqs: view.getUint32(12, true),
      };
    case "region-info":
      return regionInfoOf(view);
    case "region-read":
    case "region-write":
      return regionAccessOf(name, view, body.subarray(16));
    case "feature": {
      const flags = view.getUint32(4, true);
      return { kind: name, index: flags & 0xffff, operations: (flags & ~0xffff) >>> 0, data: body.subarray(8) };
    }
    case "mig-data-read": {
      const size = view.getUint32(4, true);
      if (size > body.length - 8) return malformed(`${size} bytes of migration data in ${body.length - 8}`);
      return { kind: name, data: body.subarray(8, 8 + size) };
    }
    case "precopy-info": {
      const initialBytes = readU64(view, 0);
      const dirtyBytes = readU64(view, 8);
      if (initialBytes === null || dirtyBytes === null) return malformed("precopy sizes beyond 2^53");
      return { kind: name, initialBytes, dirtyBytes };
    }
    case "dma-map":
    case "reset":
    case "mig-data-write":
      return { kind: name };
    case "dma-read":
    case "dma-write":
      return malformed(`${name} is a server's command`);
  }
};

const regionInfoOf = (view: DataView): Reply | Malformed => {
  const bytes = readU64(view, 16);
  const fdOffset = readU64(view, 24);
  if (bytes === null || fdOffset === null) return malformed("a region beyond 2^53");
  return { kind: "region-info", flags: view.getUint32(4, true), region: view.getUint32(8, true), bytes, fdOffset };
};

const regionAccessOf = (kind: "region-read" | "region-write", view: DataView, data: Uint8Array): Reply | Malformed => {
  const offset = readU64(view, 0);
  const region = view.getUint32(8, true);
  const count = view.getUint32(12, true);
  if (offset === null) return malformed(`${kind} beyond 2^53`);
  if (kind === "region-write") return { kind, region, offset, count };
  return count > data.length
    ? malformed(`${count} bytes of a region in ${data.length}`)
    : { kind, region, offset, data: data.subarray(0, count) };
};
