import { readFileSync, statSync } from "node:fs";
import { errnoOf, HostError } from "./host-error.ts";

/** One line of /proc/PID/maps: a range of a process's memory. */
export interface MemoryRegion {
  readonly address: bigint;
  readonly lengthBytes: number;
  readonly readable: boolean;
  readonly writable: boolean;
  readonly shared: boolean;
  /** Where in the file the range begins, bytes. */
  readonly fileOffset: number;
  /** Device as "major:minor" in hexadecimal, "00:00" without a file. */
  readonly device: string;
  /** 0 without a file. */
  readonly inode: bigint;
  /** As the kernel prints it: may end in " (deleted)", be "[heap]" or empty. */
  readonly label: string;
}

const LINE = /^([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])[x-]([sp]) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+)\s*(.*)$/;

/** Parses the text of /proc/PID/maps. Fails on a line of another shape: guessing there would track the wrong memory. */
export const parseMaps = (text: string): ReadonlyArray<MemoryRegion> =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const fields = LINE.exec(line);
      if (fields === null) throw new HostError("parse", "EINVAL", { path: "/proc/PID/maps", detail: `"${line}"` });
      const [, start, end, read, write, share, offset, device, inode, label] = fields as unknown as string[];
      const address = BigInt(`0x${start}`);
      return {
        address,
        lengthBytes: Number(BigInt(`0x${end}`) - address),
        readable: read === "r",
        writable: write === "w",
        shared: share === "s",
        fileOffset: Number.parseInt(offset!, 16),
        device: device!,
        inode: BigInt(inode!),
        label: label!,
      };
    });

/** Memory ranges of a process. Fails with ENOENT or ESRCH when there is no such process, with EACCES for somebody else's. */
export const readMaps = (pid: number): ReadonlyArray<MemoryRegion> => {
  const path = `/proc/${pid}/maps`;
  try {
    return parseMaps(readFileSync(path, "utf8"));
  } catch (error) {
    if (error instanceof HostError) throw error;
    throw new HostError("read", errnoOf(error), { path });
  }
};

/** A contiguous part of a file in the memory of a process. */
export interface FileMapping {
  readonly address: bigint;
  readonly lengthBytes: number;
  readonly fileOffset: number;
}

/** What tells a file apart from all others on this host, as the maps file prints it. */
export interface FileIdentity {
  readonly device: string;
  readonly inode: bigint;
}

/**
 * Identity of a file. `path` may be `/proc/PID/fd/N`, which finds a memfd too. Names would not do: a name may be deleted, or
 * mean another file in another container.
 */
export const identifyFile = (path: string): FileIdentity => {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    // Linux' encoding of a device number: 12 bits of major in the middle, 20 bits of minor around them.
    const major = (dev >> 8n) & 0xfffn;
    const minor = (dev & 0xffn) | ((dev >> 12n) & 0xfff00n);
    const hex = (value: bigint) => value.toString(16).padStart(2, "0");
    return { device: `${hex(major)}:${hex(minor)}`, inode: ino };
  } catch (error) {
    throw new HostError("stat", errnoOf(error), { path });
  }
};

/**
 * Where a process maps a file shared and writable, in order of address. Neighbours that continue one another are joined:
 * the kernel splits a mapping wherever an attribute differs.
 */
export const findFileMappings = (pid: number, file: FileIdentity): ReadonlyArray<FileMapping> => {
  const found: Array<{ address: bigint; lengthBytes: number; fileOffset: number }> = [];
  for (const region of readMaps(pid)) {
    if (region.inode !== file.inode || region.device !== file.device || !region.shared || !region.writable) continue;
    const last = found.at(-1);
    const continues =
      last !== undefined &&
      last.address + BigInt(last.lengthBytes) === region.address &&
      last.fileOffset + last.lengthBytes === region.fileOffset;
    if (continues) last.lengthBytes += region.lengthBytes;
    else {
      const { address, lengthBytes, fileOffset } = region;
      found.push({ address, lengthBytes, fileOffset });
    }
  }
  return found;
};

/** The address at which a process maps the whole of a file's range, or null when no single mapping covers it. */
export const findMappedRange = (
  pid: number,
  file: FileIdentity,
  range: { readonly fileOffset: number; readonly lengthBytes: number },
): bigint | null => findRanges(pid, file, range)[0] ?? null;

/** Whether a process maps that range of a file at that address (it may map it at others as well). */
export const mapsFileAt = (
  pid: number,
  file: FileIdentity,
  range: { readonly address: bigint; readonly fileOffset: number; readonly lengthBytes: number },
): boolean => findRanges(pid, file, range).includes(range.address);

const findRanges = (
  pid: number,
  file: FileIdentity,
  range: { readonly fileOffset: number; readonly lengthBytes: number },
): ReadonlyArray<bigint> =>
  findFileMappings(pid, file).flatMap((mapping) => {
    const skip = range.fileOffset - mapping.fileOffset;
    return skip >= 0 && skip + range.lengthBytes <= mapping.lengthBytes ? [mapping.address + BigInt(skip)] : [];
  });
