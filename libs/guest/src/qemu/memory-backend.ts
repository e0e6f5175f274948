import { readdirSync, readlinkSync, statSync } from "node:fs";
import { basename } from "node:path";
import { findMappedRange, hostPageBytesOf, identifyFile } from "@godwit/host";
import { PAGE_BYTES, type RamBlock } from "@godwit/memory";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import type { Qmp } from "./qmp.ts";
import type { QmpError } from "./qmp-error.ts";

/** A memory backend of QEMU (`-object memory-backend-...`), which is what a RAMBlock's bytes lie in. */
export interface MemoryBackend {
  readonly id: string;
  /** "memory-backend-file", "memory-backend-memfd", "memory-backend-ram", ... */
  readonly type: string;
  readonly share: boolean;
  readonly readonly: boolean;
  readonly sizeBytes: number;
  /** The file's path or its directory, as QEMU was told; null for a backend without one. */
  readonly memPath: string | null;
  /** Where in the file the memory begins, bytes. */
  readonly fileOffset: number;
  /** QEMU's own name for its RAMBlock, in a migration stream. */
  readonly ramBlock: string;
}

/** A RAMBlock of a QEMU. */
export interface QemuBlock extends RamBlock {
  /** QEMU's own name for it, in a migration stream. */
  readonly ramBlock: string;
  /** Where QEMU maps the block; null when its process cannot be looked into from here. */
  readonly address: bigint | null;
}

const Memdevs = Schema.Array(
  Schema.Struct({ id: Schema.optionalKey(Schema.String), size: Schema.Int, share: Schema.Boolean }),
);

/** All memory backends a QEMU has, in order of id. */
export const listMemoryBackends = (qmp: Qmp): Effect.Effect<ReadonlyArray<MemoryBackend>, QmpError> =>
  Effect.gen(function* () {
    const memdevs = yield* qmp.execute("query-memdev", Memdevs);
    const backends = yield* Effect.forEach(memdevs, ({ id = "", size, share }) =>
      Effect.gen(function* () {
        const property = <A>(name: string, schema: Schema.ConstraintDecoder<A>, absent: A) =>
          qmp
            .execute("qom-get", schema, { path: `/objects/${id}`, property: name })
            // Which properties there are depends on the backend's type and on QEMU's version.
            .pipe(Effect.catch((error) => (error.kind === "refused" ? Effect.succeed(absent) : Effect.fail(error))));
        return {
          id,
          share,
          sizeBytes: size,
          type: yield* property("type", Schema.String, "a memory backend without a name"),
          readonly: yield* property("readonly", Schema.Boolean, false),
          memPath: yield* property<string | null>("mem-path", Schema.String, null),
          fileOffset: yield* property("offset", Schema.Int, 0),
          // Machine types before 4.0 name it after its place in the object tree.
          ramBlock: (yield* property("x-use-canonical-path-for-ramblock-id", Schema.Boolean, false))
            ? `/objects/${id}`
            : id,
        };
      }),
    );
    return backends.toSorted((a, b) => (a.id < b.id ? -1 : 1));
  });

const REMEDY =
  "start it with -object memory-backend-file,id=ram0,size=SIZE,mem-path=/dev/shm/NAME,share=on -machine TYPE,memory-backend=ram0";

/**
 * Why a backend's memory cannot be moved from outside, with the remedy; null when it can.
 *
 * A memfd is shared as well, but from 8.1 on QEMU leaves out of its device state only what has a name in a file system: all
 * the rest travels inside it while the guest is stopped. Measured with 10.0: 190 ms for 64 MiB, 1,450 ms for 512 MiB.
 */
export const refusalOfBackend = (backend: MemoryBackend): string | null => {
  const what = `its RAM "${backend.id}" (${backend.type}, share=${backend.share ? "on" : "off"})`;
  if (!backend.share) return `${what} is private to QEMU, so nobody else can read it; ${REMEDY}`;
  if (backend.memPath === null) return `${what} has no name in a file system, so QEMU would send it itself; ${REMEDY}`;
  if (backend.readonly) return `${what} is read-only, so it could not be written at the destination; ${REMEDY} instead`;
  if (backend.sizeBytes % PAGE_BYTES !== 0)
    return `${what} has ${backend.sizeBytes} bytes, which is not a multiple of ${PAGE_BYTES}; give it a whole number of pages`;
  return null;
};

/**
 * The block of a movable backend: its file as this process can open it, and its address in QEMU's process `pid`.
 *
 * The path that QEMU knows may lie in another mount namespace (a container), may have been deleted or replaced since, or may
 * be a directory in which QEMU made a file and unlinked it at once. /proc leads to all of them as long as that process lives.
 * Throws Error with the reason when no way leads there.
 */
export const locateBlock = (backend: MemoryBackend, pid: number): QemuBlock => {
  const memPath = backend.memPath!;
  const range = { fileOffset: backend.fileOffset, lengthBytes: backend.sizeBytes };
  const holdsRange = (path: string) => (fileBytes(path) ?? 0) >= range.fileOffset + range.lengthBytes;
  for (const path of [memPath, `/proc/${pid}/root${memPath}`, ...unlinkedFiles(backend.id, memPath, pid)]) {
    const address = holdsRange(path) ? mappedAt(pid, path, range) : null;
    if (address !== null) return blockAt(backend, path, address);
  }
  // Somebody else opened the socket for QEMU (libvirt does), or QEMU cannot be seen from here: the name alone must do.
  if (!isQemu(pid) && holdsRange(memPath)) return blockAt(backend, memPath, null);
  throw new Error(
    `RAM file ${memPath} of "${backend.id}" cannot be opened from here, or is not the one that QEMU uses`,
  );
};

/** Whether a process is visibly a QEMU. */
const isQemu = (pid: number): boolean => {
  const program = attempt(() => readlinkSync(`/proc/${pid}/exe`));
  return program !== null && basename(program).includes("qemu");
};

const blockAt = (backend: MemoryBackend, path: string, address: bigint | null): QemuBlock => ({
  name: backend.id,
  lengthBytes: backend.sizeBytes,
  hostPageBytes: hostPageBytesOf(path),
  path,
  fileOffset: backend.fileOffset,
  ramBlock: backend.ramBlock,
  address,
});

/** Length of a regular file; null when there is none at that path, or it may not be seen. */
const fileBytes = (path: string): number | null => {
  const stat = attempt(() => statSync(path));
  return stat?.isFile() ? stat.size : null;
};

const mappedAt = (pid: number, path: string, range: { fileOffset: number; lengthBytes: number }): bigint | null =>
  attempt(() => findMappedRange(pid, identifyFile(path), range));

/** Unlinked files of backend `id`, at `memPath` or made by QEMU in that directory, by the descriptors it holds of them. */
const unlinkedFiles = (id: string, memPath: string, pid: number): ReadonlyArray<string> => {
  const directory = memPath.replace(/\/+$/, "");
  // QEMU names them after the RAMBlock, which is the id alone or, as a machine may ask for, its place in the object tree.
  const prefixes = [`${directory}/qemu_back_mem.${id}.`, `${directory}/qemu_back_mem._objects_${id}.`];
  const deleted = `${memPath} (deleted)`;
  const descriptors = `/proc/${pid}/fd`;
  return (attempt(() => readdirSync(descriptors)) ?? [])
    .map((fd) => `${descriptors}/${fd}`)
    .filter((path) => {
      const target = attempt(() => readlinkSync(path));
      return target !== null && (target === deleted || prefixes.some((prefix) => target.startsWith(prefix)));
    });
};

/** Null instead of an exception: for looking where there may be nothing to see. */
const attempt = <A>(look: () => A): A | null => {
  try {
    return look();
  } catch {
    // The caller tries the next place, and says which file it did not find anywhere.
    return null;
  }
};
