/** Fields and bodies that requests and replies have in common. */
import { type Malformed, malformed, viewOf } from "./header.ts";
import type { DmaUnmapMessage, VersionMessage } from "./message.ts";

/** JSON of a VERSION, bytes with its NUL. libvfio-user's has below 150; whatever is longer is not meant well. */
export const VERSION_TEXT_BYTES_MAX = 4096;

/** Reads 64 bits; null beyond 2^53, where numbers are no longer exact: no size, address or offset of ours gets there. */
export const readU64 = (view: DataView, at: number): number | null => {
  const value = Number(view.getBigUint64(at, true));
  return Number.isSafeInteger(value) ? value : null;
};
/** `value` is a whole number from 0 to 2^53 - 1. */
export const writeU64 = (view: DataView, at: number, value: number): void => view.setBigUint64(at, BigInt(value), true);

const textEncoder = new TextEncoder();
const textDecoder = new TextDecoder();

/** VERSION's body, the same both ways. */
export const versionBody = ({ major, minor, text }: VersionMessage): Uint8Array => {
  const bytes = textEncoder.encode(text);
  const body = new Uint8Array(4 + (bytes.length === 0 ? 0 : bytes.length + 1));
  const view = viewOf(body);
  view.setUint16(0, major, true);
  view.setUint16(2, minor, true);
  body.set(bytes, 4);
  return body;
};
export const decodeVersion = (body: Uint8Array): VersionMessage | Malformed => {
  if (body.length < 4) return malformed(`a version of ${body.length} bytes`);
  const text = body.subarray(4);
  if (text.length > VERSION_TEXT_BYTES_MAX) return malformed(`${text.length} bytes of JSON in a version`);
  const end = text.length === 0 ? 0 : text.indexOf(0);
  if (end < 0) return malformed("the JSON of a version does not end with NUL");
  const view = viewOf(body);
  return {
    kind: "version",
    major: view.getUint16(0, true),
    minor: view.getUint16(2, true),
    text: textDecoder.decode(text.subarray(0, end)),
  };
};

export const DMA_UNMAP_BYTES = 24;
export const writeDmaUnmap = (view: DataView, { flags, iova, bytes }: DmaUnmapMessage): void => {
  view.setUint32(0, DMA_UNMAP_BYTES, true);
  view.setUint32(4, flags, true);
  writeU64(view, 8, iova);
  writeU64(view, 16, bytes);
};
export const decodeDmaUnmap = (body: Uint8Array): DmaUnmapMessage | Malformed => {
  if (body.length < DMA_UNMAP_BYTES) return malformed(`a DMA unmap of ${body.length} bytes`);
  const view = viewOf(body);
  const iova = readU64(view, 8);
  const bytes = readU64(view, 16);
  if (iova === null || bytes === null) return malformed("a DMA unmap beyond 2^53");
  return { kind: "dma-unmap", flags: view.getUint32(4, true), iova, bytes };
};
