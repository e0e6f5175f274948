/**
 * What a restarted loader must know of a guest that runs while its pages come from a checkpoint: `<runtime>/paging/<guest>.json`,
 * written whole before the guest may run, and gone once all of its memory is there. How far it was is no part of it: the guest's
 * memory itself says which pages are there.
 */
import { fstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isMalformed, RestoreRequest, storedJson } from "@godwit/protocol";
import * as Schema from "effect/Schema";
import { GuestMemory } from "./guest-memory.ts";

/** Which file, and which save: a file that was replaced has another inode, one that was written over another fingerprint. */
export const CheckpointIdentity = Schema.Struct({
  device: Schema.String,
  inode: Schema.String,
  bytes: Schema.Finite,
  fingerprint: Schema.Natural,
});
export type CheckpointIdentity = typeof CheckpointIdentity.Type;

export const PagingFacts = Schema.Struct({
  asked: RestoreRequest,
  startedAt: Schema.Finite,
  memory: GuestMemory,
  place: Schema.Struct({ path: Schema.String, start: Schema.Natural }),
  checkpoint: CheckpointIdentity,
  restBytesPerSecond: Schema.Natural,
});
export type PagingFacts = typeof PagingFacts.Type;
const codec = storedJson(PagingFacts);

const SUFFIX = ".json";
const directoryOf = (runtimeDirectory: string): string => join(runtimeDirectory, "paging");
const pathOf = (runtimeDirectory: string, guest: string): string => join(directoryOf(runtimeDirectory), guest + SUFFIX);

export const identityOf = (fd: number, fingerprint: number): CheckpointIdentity => {
  const { dev, ino, size } = fstatSync(fd, { bigint: true });
  return { device: String(dev), inode: String(ino), bytes: Number(size), fingerprint };
};

/** What is not the same, as a clause; null: it is the same save. */
export const differenceOf = (noted: CheckpointIdentity, found: CheckpointIdentity): string | null => {
  if (noted.device !== found.device || noted.inode !== found.inode) return "it was replaced by another file";
  if (noted.bytes !== found.bytes) return `it has ${found.bytes} bytes now, and had ${noted.bytes}`;
  return noted.fingerprint === found.fingerprint ? null : "it holds another save now";
};

/** Throws what the file system throws. */
export const notePaging = (runtimeDirectory: string, facts: PagingFacts): void => {
  mkdirSync(directoryOf(runtimeDirectory), { recursive: true, mode: 0o700 });
  const path = pathOf(runtimeDirectory, facts.asked.guest);
  writeFileSync(`${path}.new`, codec.encode(facts), { mode: 0o600 });
  renameSync(`${path}.new`, path);
};

/** Forgets it, if what is noted of the guest is of that restore. */
export const forgetPaging = (runtimeDirectory: string, { guest, id }: Pick<RestoreRequest, "guest" | "id">): void => {
  const left = leftPagings(runtimeDirectory).find(({ asked }) => asked.guest === guest);
  if (left?.asked.id === id) rmSync(pathOf(runtimeDirectory, guest), { force: true });
};

/** What former lives of this loader have left. What cannot be read is of no use to anybody, and is passed over. */
export const leftPagings = (runtimeDirectory: string): ReadonlyArray<PagingFacts> => {
  const directory = directoryOf(runtimeDirectory);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  return readdirSync(directory)
    .filter((name) => name.endsWith(SUFFIX))
    .map((name) => codec.decode(readFileSync(join(directory, name))))
    .filter((facts) => !isMalformed(facts)) as ReadonlyArray<PagingFacts>;
};
