/**
 * What of a session outlives its loader: facts about it, its fence, and the lock that says whether its loader lives. With the
 * guest's memory, which is a file of its own, a restarted loader goes on where its predecessor stopped.
 *
 *     <runtime>/incoming/<migration>-<epoch>.session   facts, JSON, written whole
 *     <runtime>/incoming/<migration>-<epoch>.fence     the fence's words, mapped and locked
 *     <runtime>/incoming/<migration>-<epoch>           the device state as far as it came
 *     <runtime>/incoming/<migration>-<epoch>.sealing   how its packets are sealed (`libs/encryption`)
 *     <runtime>/incoming/<migration>-<epoch>.missing   in a postcopy: the pages that have not come yet
 *
 * The lock is what makes one incarnation safe for two processes in turn: the kernel gives it away only when its holder is gone, so
 * a loader that merely sleeps keeps it, and nobody goes on in its place (R7).
 */
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { allocateFile, type Mapping, mapFile, tryLockFile } from "@godwit/host";
import { Epoch, Incarnation, isMalformed, MigrationId, Name, Offer, Parameters, storedJson } from "@godwit/protocol";
import * as Schema from "effect/Schema";
import { GuestMemory, isSameMemory } from "./guest-memory.ts";

export const SessionFacts = Schema.Struct({
  migration: MigrationId,
  guest: Name,
  source: Name,
  incarnation: Incarnation,
  /** How often a restarted loader has gone on with it. */
  life: Schema.Natural,
  epoch: Epoch,
  term: Schema.Natural,
  offer: Offer,
  /** Of the incoming guest. */
  memory: GuestMemory,
  parameters: Parameters,
  capabilities: Schema.Record(Schema.String, Schema.Boolean),
});
export type SessionFacts = typeof SessionFacts.Type;
const codec = storedJson(SessionFacts);

const FACTS = ".session";
/** Until they are written whole. */
const NEW_FACTS = ".session.new";
const FENCE = ".fence";
const MISSING = ".missing";
/** Written by others than this file, and gone with the session. */
const SEALING = ".sealing";

export interface SessionFile {
  /** The fence's words, shared with the file. */
  readonly words: Uint32Array;
  readonly deviceStatePath: string;
  /** Where a postcopy keeps which pages are missing (`missing-file.ts`). */
  readonly missingPath: string;
  /** Lets go of it, and leaves it for a successor. */
  readonly close: () => void;
  /** The session is over: nothing is left of it. */
  readonly remove: () => void;
}

const directoryOf = (runtimeDirectory: string): string => join(runtimeDirectory, "incoming");
const stemOf = (runtimeDirectory: string, facts: { readonly migration: string; readonly epoch: number }): string =>
  join(directoryOf(runtimeDirectory), `${facts.migration}-${facts.epoch}`);

const removeFiles = (stem: string): void => {
  // The facts first: without them nobody looks at the rest.
  for (const path of [stem + FACTS, stem + NEW_FACTS, stem + FENCE, stem + MISSING, stem + SEALING, stem])
    rmSync(path, { force: true });
};

/** Makes the files of a new session, in place of what earlier attempts of its migration have left. Throws what the file system throws. */
export const createSessionFile = (runtimeDirectory: string, facts: SessionFacts, words: number): SessionFile => {
  mkdirSync(directoryOf(runtimeDirectory), { recursive: true, mode: 0o700 });
  const stem = stemOf(runtimeDirectory, facts);
  removeUnless(runtimeDirectory, (name) => !name.startsWith(`${facts.migration}-`));
  const fd = openSync(stem + FENCE, "wx+", 0o600);
  try {
    // All of it now: the fence is written through a mapping, where a full file system is a SIGBUS.
    allocateFile(fd, words * Uint32Array.BYTES_PER_ELEMENT, stem + FENCE);
    return open(stem, facts, fd, words);
  } catch (error) {
    closeSync(fd);
    removeFiles(stem);
    throw error;
  }
};

/** Goes on with a session whose loader is gone; null when it lives, when the files are not whole, or when it had filled other memory. */
export const reopenSessionFile = (runtimeDirectory: string, facts: SessionFacts, words: number): SessionFile | null => {
  const stem = stemOf(runtimeDirectory, facts);
  let fd: number;
  try {
    fd = openSync(stem + FENCE, "r+");
  } catch {
    return null;
  }
  try {
    const left = codec.decode(readFileSync(stem + FACTS));
    if (isMalformed(left) || !isSameMemory(left.memory, facts.memory)) throw new Error(`${stem}: other memory`);
    return open(stem, facts, fd, words);
  } catch {
    closeSync(fd);
    return null;
  }
};

const open = (stem: string, facts: SessionFacts, fd: number, words: number): SessionFile => {
  if (!tryLockFile(fd)) throw new Error(`${stem}: its loader lives`);
  const mapping: Mapping = mapFile(
    fd,
    { offsetBytes: 0, lengthBytes: words * Uint32Array.BYTES_PER_ELEMENT },
    "writable",
  );
  const close = (): void => {
    mapping.unmap();
    closeSync(fd);
  };
  try {
    writeFileSync(stem + NEW_FACTS, codec.encode(facts), { mode: 0o600 });
    renameSync(stem + NEW_FACTS, stem + FACTS);
  } catch (error) {
    mapping.unmap();
    throw error;
  }
  return {
    words: new Uint32Array(mapping.bytes.buffer, mapping.bytes.byteOffset, words),
    deviceStatePath: stem,
    missingPath: stem + MISSING,
    close,
    remove: () => {
      removeFiles(stem);
      close();
    },
  };
};

const removeUnless = (runtimeDirectory: string, keep: (name: string) => boolean): void => {
  for (const name of readdirSync(directoryOf(runtimeDirectory)))
    if (!keep(name)) rmSync(join(directoryOf(runtimeDirectory), name), { force: true });
};

/** Sessions that a former loader of this node has left. What belongs to none that is whole is removed. */
export const leftSessions = (runtimeDirectory: string): ReadonlyArray<SessionFacts> => {
  const directory = directoryOf(runtimeDirectory);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const left = readdirSync(directory)
    .filter((name) => name.endsWith(FACTS))
    .map((name) => codec.decode(readFileSync(join(directory, name))))
    .filter((facts) => !isMalformed(facts)) as ReadonlyArray<SessionFacts>;
  const stems = left.map(({ migration, epoch }) => `${migration}-${epoch}`);
  removeUnless(runtimeDirectory, (name) => stems.some((stem) => name === stem || name.startsWith(`${stem}.`)));
  return left;
};

/** Removes a session that nobody can go on with. */
export const removeSession = (runtimeDirectory: string, facts: SessionFacts): void =>
  removeFiles(stemOf(runtimeDirectory, facts));
