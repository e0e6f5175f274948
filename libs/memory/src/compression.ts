/**
 * Packs and unpacks the payload of one packet, whole: each packet stands alone, so any of them may be lost or repeated.
 *
 * Unpacking is bounded by the length the packet declares, however well the bytes expand, and refuses what does not fill that length
 * exactly or leaves input over: zlib ignores trailing bytes, and Node's zstd stops after the first frame.
 */
import { constants, deflateSync, inflateSync, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { type Compression, SLICE_BYTES_MAX } from "@godwit/protocol";

/** log2 of the largest window a frame may ask for: no payload is longer, while a forged frame may ask for 128 MiB. */
const ZSTD_WINDOW_LOG_MAX = Math.ceil(Math.log2(SLICE_BYTES_MAX));

/** Levels as QEMU names them: zlib 0 to 9, zstd 0 (its default) to 20. */
export const compress = (kind: Exclude<Compression, "none">, level: number, bytes: Uint8Array): Uint8Array =>
  kind === "zlib"
    ? deflateSync(bytes, { level })
    : zstdCompressSync(bytes, {
        params: { [constants.ZSTD_c_compressionLevel]: level },
        // Told the length, zstd takes tables and a window of that size, and so does who unpacks it.
        pledgedSrcSize: bytes.length,
      });

/**
 * What Node.js unpacks into at once is longer than the result by this, bytes, so that it takes one buffer and one call; with its default of
 * 16 KiB a packet is put together from pieces, and takes a third longer.
 */
const ROOM_BYTES = 64;

interface WithEngine {
  readonly buffer: Buffer;
  readonly engine: { readonly bytesWritten: number };
}

/** The unpacked bytes, or why these are not `rawBytes` packed. Never throws, never makes more than `rawBytes`. */
export const decompress = (
  kind: Compression,
  payload: Uint8Array,
  rawBytes: number,
): Uint8Array | { readonly malformed: string } => {
  if (kind === "none") {
    return payload.length === rawBytes ? payload : { malformed: `${payload.length} bytes, ${rawBytes} were declared` };
  }
  // A limit of 0 is no limit to zlib; nothing to unpack needs no unpacking.
  if (rawBytes === 0) return payload.length === 0 ? payload : { malformed: "a payload where none was declared" };
  try {
    const options = { maxOutputLength: rawBytes, chunkSize: rawBytes + ROOM_BYTES, info: true } as const;
    const { buffer, engine } = (kind === "zlib"
      ? inflateSync(payload, options)
      : zstdDecompressSync(payload, {
          ...options,
          params: { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX },
        })) as unknown as WithEngine;
    if (buffer.length !== rawBytes)
      return { malformed: `unpacks to ${buffer.length} bytes, ${rawBytes} were declared` };
    if (engine.bytesWritten !== payload.length)
      return { malformed: `${payload.length - engine.bytesWritten} bytes are left over` };
    return buffer;
  } catch (error) {
    return { malformed: `${kind}: ${error instanceof Error ? error.message : String(error)}` };
  }
};
