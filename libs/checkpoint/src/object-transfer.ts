/** A checkpoint on its way into an object store and out of it: part by part, each found to be right, and none moved twice. */
import { closeSync, fstatSync, openSync, rmSync } from "node:fs";
import type { FabricError, ObjectStore } from "@godwit/fabric";
import { tryShareFile } from "@godwit/host";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";
import { MalformedCheckpoint } from "./malformed.ts";
import {
  assemble,
  decodeManifest,
  encodeManifest,
  MANIFEST_BYTES_MAX,
  type Part,
  type PartsManifest,
  packPart,
  partName,
  partPrefix,
  storeDigest,
  windowsOf,
} from "./parts.ts";

/** A connection that broke is given a minute to come back; what was moved before that is not moved again. */
const AGAIN = { schedule: Schedule.spaced("500 millis"), times: 120 };
const patiently = <A>(work: Effect.Effect<A, FabricError>): Effect.Effect<A, FabricError> =>
  Effect.retry(work, { ...AGAIN, while: ({ retryable }) => retryable });

/** What the file system, or the file, has against it. */
export type TransferError = FabricError | MalformedCheckpoint | Error;

const asError = (cause: unknown): Error => (cause instanceof Error ? cause : new Error(String(cause)));
const locally = <A>(work: () => A): Effect.Effect<A, Error> => Effect.try({ try: work, catch: asError });

/**
 * Puts the checkpoint at `path` into the store as `name`; `told` hears of the bytes that are there, one part after the other. An
 * earlier checkpoint of that name stays until this one is whole, and goes then. Repeated with the same id it goes on where it stopped.
 */
export const uploadCheckpoint = (
  store: ObjectStore,
  checkpoint: { readonly name: string; readonly id: string; readonly path: string; readonly start: number },
  told: (bytes: number) => void,
): Effect.Effect<void, TransferError> =>
  Effect.acquireUseRelease(
    locally(() => {
      const fd = openSync(checkpoint.path, "r");
      // Nobody takes it for a leftover meanwhile.
      tryShareFile(fd);
      return fd;
    }),
    (fd) =>
      Effect.gen(function* () {
        const { name, id, start } = checkpoint;
        const parts: Part[] = [];
        for (const { offset, bytes } of yield* locally(() => windowsOf(fd))) {
          const { part, packed } = yield* Effect.tryPromise({ try: () => packPart(fd, offset, bytes), catch: asError });
          yield* patiently(putOnce(store, partName(name, id, parts.length), packed, storeDigest(part.sha256)));
          parts.push(part);
          told(part.packed);
        }
        const size = yield* locally(() => fstatSync(fd).size);
        const manifest = encodeManifest({ version: 1, id, bytes: size, start, parts });
        if (manifest.length > MANIFEST_BYTES_MAX)
          return yield* Effect.fail(new Error(`${parts.length} parts are too many for one checkpoint`));
        yield* patiently(store.put(name, manifest));
        yield* patiently(sweep(store, name, id));
      }),
    (fd) => Effect.sync(() => closeSync(fd)),
  );

/** One that is there already, of an upload that was broken off, is not sent again. */
const putOnce = (
  store: ObjectStore,
  name: string,
  content: Uint8Array,
  digest: string,
): Effect.Effect<void, FabricError> =>
  Effect.flatMap(store.info(name), (found) =>
    found?.digest.replace(/=+$/, "") === digest && found.bytes === content.length
      ? Effect.void
      : store.put(name, content),
  );

/** Parts of other saves of that name: the manifest that named them is gone, or was never put. */
const sweep = (store: ObjectStore, name: string, id: string): Effect.Effect<void, FabricError> =>
  Effect.flatMap(store.list, (all) =>
    Effect.forEach(
      all.filter((one) => one.name.startsWith(partPrefix(name)) && !one.name.startsWith(`${partPrefix(name)}${id}/`)),
      (old) => store.remove(old.name),
      { discard: true },
    ),
  );

/**
 * Puts the checkpoint `name` together in a new file at `path`; null when there is none of that name. A part that is not what was saved
 * is MalformedCheckpoint. The file goes with the scope.
 */
export const downloadCheckpoint = (
  store: ObjectStore,
  name: string,
  path: string,
  told: (bytes: number) => void,
): Effect.Effect<PartsManifest | null, TransferError, Scope.Scope> =>
  Effect.gen(function* () {
    const found = yield* patiently(store.info(name));
    if (found === null) return null;
    if (found.bytes > MANIFEST_BYTES_MAX)
      return yield* Effect.fail(
        new MalformedCheckpoint(0, `${name} has ${found.bytes} bytes: no manifest of a checkpoint`),
      );
    const content = yield* patiently(store.get(name));
    if (content === null) return null;
    const manifest = yield* locally(() => decodeManifest(content));
    const assembly = yield* Effect.acquireRelease(
      locally(() => assemble(path, manifest)),
      (open) =>
        Effect.sync(() => {
          open.close();
          rmSync(path, { force: true });
        }),
    );
    for (const [number, part] of manifest.parts.entries()) {
      const object = partName(name, manifest.id, number);
      const info = yield* patiently(store.info(object));
      // Looked at first: what is too long is not taken into memory.
      if (info === null || info.bytes !== part.packed)
        return yield* Effect.fail(
          new MalformedCheckpoint(part.offset, `part ${number} (${object}) is not there, or not whole`),
        );
      const piece = yield* patiently(store.get(object));
      if (piece === null)
        return yield* Effect.fail(new MalformedCheckpoint(part.offset, `part ${number} (${object}) is gone`));
      yield* Effect.tryPromise({ try: () => assembly.place(number, piece), catch: asError });
      told(part.packed);
    }
    yield* locally(assembly.sync);
    return manifest;
  });
