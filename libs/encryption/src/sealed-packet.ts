/**
 * A sealed packet: a whole packet of a channel, header and page numbers included, under AES-256-GCM. Little-endian.
 *
 *      0 u32 magic "GWS1"   4 u8 version   5 u8 purpose (1 ram, 2 devices)   6 u16 zero (reserved)
 *      8 u64 migration     16 u32 epoch   20 u32 counter   24 16 bytes salt
 *     40 the packet, encrypted; then 16 bytes tag, over it and the header
 *
 * The header says which key opens it, and nothing else: that is what both NATS and a stranger may know. The nonce is the counter, in 12
 * bytes; it never comes twice under one subkey, which is the salt's alone. Both are used in one place, `sealInto`.
 */
import { createCipheriv, createDecipheriv } from "node:crypto";
import { type Malformed, readId, writeId } from "@godwit/protocol";
import { PURPOSES, type Purpose, SALT_BYTES } from "./key-schedule.ts";

const CIPHER = "aes-256-gcm";
const MAGIC = 0x31535747;
const VERSION = 1;
const COUNTER_AT = 20;
const SALT_AT = 24;
const TAG_BYTES = 16;
export const SEALED_HEADER_BYTES = SALT_AT + SALT_BYTES;
/** What sealing adds to a packet, bytes. */
export const SEALING_BYTES = SEALED_HEADER_BYTES + TAG_BYTES;
/**
 * Packets under one subkey. With the largest packets (2^14 blocks of 16 bytes) that is 2^36 blocks, for which an attacker's advantage stays
 * below 2^-57, the bound that TLS 1.3 and QUIC keep with AES-GCM (RFC 9001, appendix B).
 */
export const PACKETS_PER_SUBKEY_MAX = 2 ** 22;

/** Which key opens a sealed packet, and which of its packets it is: counted from 1. */
export interface SealedHeader {
  readonly purpose: Purpose;
  readonly migration: string;
  readonly epoch: number;
  readonly salt: Uint8Array;
  readonly counter: number;
}

const nonceOf = (counter: number): Uint8Array => {
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32LE(counter, 0);
  return nonce;
};

/**
 * Seals the packet of `packetBytes` bytes that stands in `room` behind SEALED_HEADER_BYTES, in its place, and returns the bytes to send.
 * Who calls says each counter once for each subkey.
 */
export const sealInto = (room: Uint8Array, packetBytes: number, header: SealedHeader, key: Uint8Array): Uint8Array => {
  const end = SEALED_HEADER_BYTES + packetBytes;
  const view = new DataView(room.buffer, room.byteOffset, room.byteLength);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, VERSION);
  view.setUint8(5, PURPOSES.indexOf(header.purpose) + 1);
  view.setUint16(6, 0, true);
  writeId(view, 8, header.migration);
  view.setUint32(16, header.epoch, true);
  view.setUint32(COUNTER_AT, header.counter, true);
  room.set(header.salt, SALT_AT);
  const cipher = createCipheriv(CIPHER, key, nonceOf(header.counter), { authTagLength: TAG_BYTES });
  cipher.setAAD(room.subarray(0, SEALED_HEADER_BYTES));
  const sealed = cipher.update(room.subarray(SEALED_HEADER_BYTES, end));
  cipher.final();
  room.set(sealed, SEALED_HEADER_BYTES);
  room.set(cipher.getAuthTag(), end);
  release(sealed);
  return room.subarray(0, end + TAG_BYTES);
};

/** Memory outside the heap, which otherwise waits for the garbage collector: a quarter of a MiB for each packet. */
const release = ({ buffer, byteLength }: Uint8Array): void => {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
};

const malformed = (reason: string): Malformed => ({ kind: "malformed", reason });

/** What a sealed packet says of itself, before anything of it is known to be true. Reads only inside `bytes`; `salt` is a view. */
export const readSealedHeader = (bytes: Uint8Array): SealedHeader | Malformed => {
  if (bytes.length < SEALING_BYTES) return malformed(`${bytes.length} bytes are no sealed packet`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) return malformed("it is not sealed");
  if (view.getUint8(4) !== VERSION) return malformed(`version ${view.getUint8(4)}, expected ${VERSION}`);
  const purpose = PURPOSES[view.getUint8(5) - 1];
  if (purpose === undefined) return malformed(`unknown purpose ${view.getUint8(5)}`);
  if (view.getUint16(6, true) !== 0) return malformed("reserved bits are set");
  const counter = view.getUint32(COUNTER_AT, true);
  if (counter === 0 || counter > PACKETS_PER_SUBKEY_MAX) return malformed(`counter ${counter}`);
  return {
    purpose,
    migration: readId(view, 8),
    epoch: view.getUint32(16, true),
    salt: bytes.subarray(SALT_AT, SALT_AT + SALT_BYTES),
    counter,
  };
};

/** The packet inside, in memory of its own; null when `key` did not seal these very bytes. */
export const openSealed = (bytes: Uint8Array, counter: number, key: Uint8Array): Uint8Array | null => {
  const end = bytes.length - TAG_BYTES;
  const decipher = createDecipheriv(CIPHER, key, nonceOf(counter), { authTagLength: TAG_BYTES });
  decipher.setAAD(bytes.subarray(0, SEALED_HEADER_BYTES));
  decipher.setAuthTag(bytes.subarray(end));
  const packet = decipher.update(bytes.subarray(SEALED_HEADER_BYTES, end));
  try {
    decipher.final();
  } catch {
    // Nobody may see what it would have been.
    release(packet);
    return null;
  }
  return packet;
};
