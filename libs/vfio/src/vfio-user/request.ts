/**
 * Requests as frames. The decoder takes one whole frame, returns a reason instead of throwing, and reads only inside it; what it
 * returns are views of it. Bytes behind the end of a body are passed over, as libvfio-user does, save in writes: there they mean that
 * the frame was cut wrongly.
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
  type Malformed,
  malformed,
  TRANSFER_BYTES_MAX,
  viewOf,
} from "./header.ts";
import type { Request } from "./message.ts";

/** A request as a frame. Numbers must fit their fields; data and sizes are at most TRANSFER_BYTES_MAX. */
export const encodeRequest = (id: number, request: Request): Uint8Array => {
  const command = COMMANDS[request.kind];
  const allocate = (bodyBytes: number) => allocateFrame("command", id, command, bodyBytes);
  switch (request.kind) {
    case "version": {
      const version = versionBody(request);
      const { frame, body } = allocate(version.length);
      body.set(version);
      return frame;
    }
    case "dma-map": {
      const { frame, view } = allocate(32);
      view.setUint32(0, 32, true);
      view.setUint32(4, request.flags, true);
      writeU64(view, 8, request.fdOffset);
      writeU64(view, 16, request.iova);
      writeU64(view, 24, request.bytes);
      return frame;
    }
    case "dma-unmap": {
      const { frame, view } = allocate(DMA_UNMAP_BYTES);
      writeDmaUnmap(view, request);
      return frame;
    }
    case "device-info": {
      const { frame, view } = allocate(16);
      view.setUint32(0, 16, true);
      return frame;
    }
    case "region-info": {
      const { frame, view } = allocate(32);
      view.setUint32(0, 32, true);
      view.setUint32(8, request.region, true);
      return frame;
    }
    case "region-read": {
      const { frame, view } = allocate(16);
      writeU64(view, 0, request.offset);
      view.setUint32(8, request.region, true);
      view.setUint32(12, request.count, true);
      return frame;
    }
    case "region-write": {
      const { frame, body, view } = allocate(16 + request.data.length);
      writeU64(view, 0, request.offset);
      view.setUint32(8, request.region, true);
      view.setUint32(12, request.data.length, true);
      body.set(request.data, 16);
      return frame;
    }
    case "feature": {
      const { frame, body, view } = allocate(8 + request.data.length);
      view.setUint32(0, request.argsz, true);
      view.setUint32(4, (request.index | request.operations) >>> 0, true);
      body.set(request.data, 8);
      return frame;
    }
    case "mig-data-read": {
      const { frame, view } = allocate(8);
      view.setUint32(0, 8 + request.size, true);
      view.setUint32(4, request.size, true);
      return frame;
    }
    case "mig-data-write": {
      const { frame, body, view } = allocate(8 + request.data.length);
      view.setUint32(0, 8 + request.data.length, true);
      view.setUint32(4, request.data.length, true);
      body.set(request.data, 8);
      return frame;
    }
    case "reset":
    case "precopy-info":
      return allocate(0).frame;
  }
};

/** What stands before the data of a write of the migration stream, so that data which is long need not be copied into a frame. */
export const encodeWriteHead = (id: number, dataBytes: number): Uint8Array => {
  const { frame, view } = allocateFrame("command", id, COMMANDS["mig-data-write"], 8);
  view.setUint32(0, 8 + dataBytes, true);
  view.setUint32(4, dataBytes, true);
  viewOf(frame).setUint32(4, frame.length + dataBytes, true);
  return frame;
};

/** Reads the request in a frame; of a command that is not in the table nothing can be read. */
export const decodeRequest = (frame: Uint8Array): Request | Malformed => {
  const decoded = decodeFrame(frame, "command");
  if (decoded.kind === "malformed") return decoded;
  const name = commandName(decoded.header.command);
  return name === null ? malformed(`unknown command ${decoded.header.command}`) : requestOf(name, decoded.body);
};

/** Bytes of the fixed part of each body. */
const BODY_BYTES: Readonly<Record<CommandName, number>> = {
  version: 4,
  "dma-map": 32,
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
  "mig-data-write": 8,
  "precopy-info": 0,
};

const requestOf = (name: CommandName, body: Uint8Array): Request | Malformed => {
  if (body.length < BODY_BYTES[name]) return malformed(`${name} with ${body.length} bytes`);
  const view = viewOf(body);
  switch (name) {
    case "version":
      return decodeVersion(body);
    case "dma-map":
      return dmaMapOf(view);
    case "dma-unmap":
      return view.getUint32(0, true) < DMA_UNMAP_BYTES ? smallArgsz(name) : decodeDmaUnmap(body);
    case "device-info":
      return view.getUint32(0, true) < 16 ? smallArgsz(name) : { kind: name };
    case "region-info":
      return view.getUint32(0, true) < 32 ? smallArgsz(name) : { kind: name, region: view.getUint32(8, true) };
    case "region-read":
    case "region-write":
      return regionAccessOf(name, view, body.subarray(16));
    case "feature": {
      const argsz = view.getUint32(0, true);
      if (argsz < 8) return smallArgsz(name);
      const flags = view.getUint32(4, true);
      return { kind: name, index: flags & 0xffff, operations: (flags & ~0xffff) >>> 0, argsz, data: body.subarray(8) };
    }
    case "mig-data-read":
    case "mig-data-write":
      return migrationDataOf(name, view, body.subarray(8));
    case "reset":
    case "precopy-info":
      return { kind: name };
    case "dma-read":
    case "dma-write":
      return malformed(`${name} is a server's command`);
  }
};

const smallArgsz = (name: CommandName): Malformed => malformed(`${name} with too small an argsz`);

const dmaMapOf = (view: DataView): Request | Malformed => {
  if (view.getUint32(0, true) < 32) return smallArgsz("dma-map");
  const fdOffset = readU64(view, 8);
  const iova = readU64(view, 16);
  const bytes = readU64(view, 24);
  if (fdOffset === null || iova === null || bytes === null) return malformed("a DMA map beyond 2^53");
  return { kind: "dma-map", flags: view.getUint32(4, true), fdOffset, iova, bytes };
};

const regionAccessOf = (
  kind: "region-read" | "region-write",
  view: DataView,
  data: Uint8Array,
): Request | Malformed => {
  const offset = readU64(view, 0);
  const region = view.getUint32(8, true);
  const count = view.getUint32(12, true);
  if (offset === null) return malformed(`${kind} beyond 2^53`);
  if (count > TRANSFER_BYTES_MAX) return malformed(`${kind} of ${count} bytes`);
  if (kind === "region-read") return { kind, region, offset, count };
  return data.length === count
    ? { kind, region, offset, data }
    : malformed(`${kind} of ${count} bytes with ${data.length}`);
};

const migrationDataOf = (
  kind: "mig-data-read" | "mig-data-write",
  view: DataView,
  data: Uint8Array,
): Request | Malformed => {
  const size = view.getUint32(4, true);
  if (size > TRANSFER_BYTES_MAX) return malformed(`${kind} of ${size} bytes`);
  if (view.getUint32(0, true) < 8 + size) return smallArgsz(kind);
  if (kind === "mig-data-read") return { kind, size };
  return data.length === size ? { kind, data } : malformed(`${kind} of ${size} bytes with ${data.length}`);
};
