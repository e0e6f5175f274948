/**
 * Where device state waits to be sent: a ring for each stream, in which byte n of the stream stands at n modulo the ring's length. Workers
 * open `<runtime directory>/vfio/<migration>/<epoch>-<stream>`, and the file's length is the ring's, so that a work item names only numbers.
 *
 *     | next bytes ... free ... | acknowledged | on its way ...        |   `window` of the decisions: what is on its way fits
 *
 * The memory is used over and over: fresh pages for each byte, given back when it is acknowledged, took more time than all else that the
 * agent does with it. A worker that was asleep may find later bytes under an old number; they are under it only because it was
 * acknowledged, so the destination has it and drops what comes.
 */
import { closeSync, ftruncateSync, openSync, rmSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { addressExport, deviceStreamExport } from "@godwit/memory";
import type { Route } from "@godwit/protocol";

export interface Arena {
  /**
   * `floor`: all bytes of the stream below are acknowledged, and may be overwritten. Throws when others would be, and what the file system
   * throws; ENOSPC when the runtime directory is full.
   */
  readonly write: (stream: number, offset: number, bytes: Uint8Array, floor: number) => void;
  /** Removes it all. */
  readonly remove: () => void;
}

const directoryOf = (runtimeDirectory: string): string => join(runtimeDirectory, "vfio");

/** `destination`: the node that the streams go to. */
export const openArena = (
  runtimeDirectory: string,
  { migration, destination }: Pick<Route, "migration" | "destination">,
  epoch: number,
  ringBytes: number,
): Arena => {
  const files = new Map<number, number>();
  const directory = dirname(deviceStreamExport(runtimeDirectory, migration, epoch, 0));
  const fileOf = (stream: number): number => {
    const known = files.get(stream);
    if (known !== undefined) return known;
    addressExport(runtimeDirectory, "vfio", migration, destination);
    const fd = openSync(deviceStreamExport(runtimeDirectory, migration, epoch, stream), "w", 0o600);
    files.set(stream, fd);
    ftruncateSync(fd, ringBytes);
    return fd;
  };
  return {
    write: (stream, offset, bytes, floor) => {
      const held = offset + bytes.length - floor;
      if (held > ringBytes) throw new Error(`${held} bytes on their way do not fit a ring of ${ringBytes}`);
      const fd = fileOf(stream);
      for (let done = 0; done < bytes.length; ) {
        const at = (offset + done) % ringBytes;
        done += writeSync(fd, bytes, done, Math.min(bytes.length - done, ringBytes - at), at);
      }
    },
    remove: () => {
      for (const fd of files.values()) closeSync(fd);
      files.clear();
      rmSync(directory, { recursive: true, force: true });
    },
  };
};

/** What a former life of this agent left: its streams began nowhere that anybody still knows. */
export const removeAllArenas = (runtimeDirectory: string): void =>
  rmSync(directoryOf(runtimeDirectory), { recursive: true, force: true });
