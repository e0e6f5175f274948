/** What follows RAM: the sections of devices, the end of the stream, its description. */
import { DEVICE_STATE_BYTES_MAX } from "@godwit/protocol";
import { memoryCursor } from "./cursor.ts";
import { BUILTIN_SECTION, SECTION } from "./format.ts";
import { MalformedCheckpoint } from "./malformed.ts";
import { shortText, u8, u32 } from "./stream-words.ts";

/** A device's section as its description has it. `bytes`: null where the description does not say. */
export interface DeviceSection {
  readonly name: string;
  readonly instance: number;
  readonly version: number;
  readonly bytes: number | null;
}

/** QEMU's description of a plain PC has 100 KiB, bytes. It is parsed in one go, by an actor that has other work. */
export const DESCRIPTION_BYTES_MAX = 2 * 1024 ** 2;
/**
 * What a description may be made of, since that, and not its length, is what parsing takes its time for: brackets nested a thousand deep, or a
 * value in every third byte, cost ten times what QEMU's descriptions of that length do. Those have a value in about 20 bytes, and structures
 * within structures a dozen deep.
 */
const DESCRIPTION_VALUES_MAX = DESCRIPTION_BYTES_MAX / 16;
const DESCRIPTION_DEPTH_MAX = 64;
/** All that may follow RAM, bytes. */
export const TAIL_BYTES_MAX = DEVICE_STATE_BYTES_MAX + DESCRIPTION_BYTES_MAX;
/** A description with more devices than a machine has slots and chips is none. */
const DEVICES_DESCRIBED_MAX = 4096;

/** The tail of a builtin guest: its device state in one section. */
export const builtinTail = (state: Uint8Array): Uint8Array => {
  const { name, id, version } = BUILTIN_SECTION;
  const description = Buffer.from(
    JSON.stringify({
      page_size: 4096,
      devices: [{ name, instance_id: 0, version, fields: [{ name: "state", size: state.length }] }],
    }),
  );
  return Buffer.concat([
    u8(SECTION.full),
    u32(id),
    shortText(name),
    u32(0),
    u32(version),
    u32(state.length),
    state,
    u8(SECTION.footer),
    u32(id),
    u8(SECTION.eof),
    u8(SECTION.description),
    u32(description.length),
    description,
  ]);
};

/** The device state in a tail that `builtinTail` made; null for a tail of another hypervisor. `at`: where the tail begins in its file. */
export const builtinState = (tail: Uint8Array, at: number): Uint8Array | null => {
  const cursor = memoryCursor(tail);
  if (cursor.u8("a device section") !== SECTION.full) return null;
  cursor.u32("its number");
  if (cursor.name("its name") !== BUILTIN_SECTION.name) return null;
  cursor.u32("its instance");
  const version = cursor.u32("its version");
  if (version !== BUILTIN_SECTION.version)
    throw new MalformedCheckpoint(
      at,
      `device state of format ${version}; this godwit reads ${BUILTIN_SECTION.version}`,
    );
  const length = cursor.u32("its length");
  if (length > tail.length)
    throw new MalformedCheckpoint(at + cursor.offset() - 4, `a device state of ${length} bytes`);
  const state = cursor.bytes(length, "the device state");
  if (cursor.u8("the footer") !== SECTION.footer)
    throw new MalformedCheckpoint(at + cursor.offset() - 1, "no footer behind the device state");
  return state;
};

/**
 * The description that ends a stream, and with it the proof that the stream was written to its end; null when there is none. Sections
 * have no lengths, so it is looked for as what it must be: EOF, its mark, and a length that leads to the end of the file.
 */
export const describedDevices = (tail: Uint8Array): ReadonlyArray<DeviceSection> | null => {
  const at = endOfSections(tail);
  if (at === null) return null;
  const description = tail.subarray(at + DESCRIPTION_HEAD_BYTES);
  return isParsedSoon(description) ? parseDescription(Buffer.from(description).toString("utf8")) : null;
};

/** EOF, the mark of a description, and its length. */
const DESCRIPTION_HEAD_BYTES = 6;

/** Where the sections of a tail end and EOF, its mark, and the description follow; null when they do not. */
const endOfSections = (tail: Uint8Array): number | null => {
  const bytes = Buffer.from(tail.buffer, tail.byteOffset, tail.byteLength);
  const last = bytes.length - DESCRIPTION_HEAD_BYTES;
  // From behind, and no further than a description can be long: device state may look like anything.
  for (let at = last; at >= Math.max(0, last - DESCRIPTION_BYTES_MAX); at--)
    if (bytes[at] === SECTION.eof && bytes[at + 1] === SECTION.description && bytes.readUInt32BE(at + 2) === last - at)
      return at;
  return null;
};

const CHARACTER = { comma: 0x2c, openBracket: 0x5b, closeBracket: 0x5d, openBrace: 0x7b, closeBrace: 0x7d } as const;

/** Whether no parser takes long for it. What stands in strings counts as well: QEMU's names have none of these characters. */
const isParsedSoon = (json: Uint8Array): boolean => {
  let values = 1;
  let depth = 0;
  for (const byte of json) {
    if (byte === CHARACTER.openBracket || byte === CHARACTER.openBrace) {
      depth++;
      values++;
    } else if (byte === CHARACTER.closeBracket || byte === CHARACTER.closeBrace) depth--;
    else if (byte === CHARACTER.comma) values++;
    if (depth > DESCRIPTION_DEPTH_MAX || values > DESCRIPTION_VALUES_MAX) return false;
  }
  return true;
};

/** The sections of a tail alone, without the end of the stream; null for a tail that was not written to its end. */
export const deviceSections = (tail: Uint8Array): Uint8Array | null => {
  const end = endOfSections(tail);
  if (end !== null) return tail.subarray(0, end);
  // A machine may be told to leave the description out.
  return tail.at(-1) === SECTION.eof ? tail.subarray(0, -1) : null;
};

const parseDescription = (json: string): ReadonlyArray<DeviceSection> | null => {
  try {
    const { devices } = JSON.parse(json) as { devices?: unknown };
    if (!Array.isArray(devices) || devices.length > DEVICES_DESCRIBED_MAX) return null;
    return devices.map((device: Readonly<Record<string, unknown>>) => ({
      name: String(device["name"]),
      instance: Number(device["instance_id"] ?? 0),
      version: Number(device["version"] ?? 0),
      bytes: sizeOf(device["fields"]),
    }));
  } catch {
    return null;
  }
};

/** Only the fields of the section itself: subsections and nested structures say their own sizes. */
const sizeOf = (fields: unknown): number | null => {
  if (!Array.isArray(fields)) return null;
  let sum = 0;
  for (const field of fields as ReadonlyArray<Readonly<Record<string, unknown>>>) {
    const size = Number(field["size"] ?? 0);
    const count = Number(field["array_len"] ?? 1);
    if (!Number.isFinite(size * count)) return null;
    sum += size * count;
  }
  return sum;
};
