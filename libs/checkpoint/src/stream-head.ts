/** How every migration stream of a QEMU begins: magic, version, machine type, and the capabilities that it was written with. */
import { closeSync, fstatSync, openSync } from "node:fs";
import { type Cursor, fileCursor } from "./cursor.ts";
import {
  CAPABILITIES_MAX,
  CAPABILITIES_SUBSECTION,
  IGNORE_SHARED,
  MACHINE_BYTES_MAX,
  SECTION,
  STREAM_MAGIC,
  STREAM_VERSION,
} from "./format.ts";
import { MalformedCheckpoint } from "./malformed.ts";

export interface StreamHead {
  readonly machine: string;
  /** Those that are on and change the stream. */
  readonly capabilities: ReadonlyArray<string>;
}

/** What else may stand in a configuration, and how many bytes it has behind its version: vmstate_configuration in migration/savevm.c. */
const OTHER_SUBSECTIONS = new Map([
  ["configuration/target-page-bits", 4],
  ["configuration/uuid", 16],
]);

/**
 * `subsections`: whether those of a configuration that a checkpoint does not keep are skipped or refused. Throws MalformedCheckpoint. The
 * cursor stands behind the head then.
 */
export const readStreamHead = (cursor: Cursor, subsections: "any" | "those of a checkpoint"): StreamHead => {
  const start = cursor.offset();
  if (cursor.u32("the magic") !== STREAM_MAGIC) throw new MalformedCheckpoint(start, "not a migration stream");
  const version = cursor.u32("the version");
  if (version !== STREAM_VERSION)
    throw new MalformedCheckpoint(start + 4, `stream version ${version}, expected ${STREAM_VERSION}`);
  if (cursor.u8("the configuration") !== SECTION.configuration)
    throw new MalformedCheckpoint(cursor.offset() - 1, "no configuration section");
  const length = cursor.u32("the length of the machine type");
  if (length > MACHINE_BYTES_MAX)
    throw new MalformedCheckpoint(cursor.offset() - 4, `a machine type of ${length} bytes`);
  const machine = new TextDecoder().decode(cursor.bytes(length, "the machine type"));
  let capabilities: ReadonlyArray<string> = [];
  const seen = new Set<string>();
  while (cursor.peek("a section") === SECTION.subsection) {
    const at = cursor.offset();
    cursor.u8("a section");
    const name = cursor.name("the name of a subsection");
    if (seen.has(name)) throw new MalformedCheckpoint(at, `subsection ${JSON.stringify(name)} twice`);
    seen.add(name);
    cursor.u32("its version");
    const bytes = subsections === "any" ? OTHER_SUBSECTIONS.get(name) : undefined;
    if (name === CAPABILITIES_SUBSECTION) capabilities = readNames(cursor);
    else if (bytes !== undefined) cursor.bytes(bytes, name);
    else throw new MalformedCheckpoint(at, `subsection ${JSON.stringify(name)}, expected ${CAPABILITIES_SUBSECTION}`);
  }
  return { machine, capabilities };
};

const readNames = (cursor: Cursor): ReadonlyArray<string> => {
  const count = cursor.u32("the number of capabilities");
  if (count > CAPABILITIES_MAX) throw new MalformedCheckpoint(cursor.offset() - 4, `${count} capabilities`);
  return Array.from({ length: count }, () => cursor.name("a capability"));
};

/** Whether the stream in the file at `path` leaves shared RAM out, and is to be read so. Throws MalformedCheckpoint, and what the file system throws. */
export const ignoresShared = (path: string): boolean => {
  const fd = openSync(path, "r");
  try {
    return readStreamHead(fileCursor(fd, 0, fstatSync(fd).size), "any").capabilities.includes(IGNORE_SHARED);
  } finally {
    closeSync(fd);
  }
};
