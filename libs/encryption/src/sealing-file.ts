/**
 * How an attempt's packets travel, as the processes of one host tell each other: a file of 0600 in the node's private runtime directory,
 * never a message. Whoever reads it refuses to go on without it: that a file is missing must never mean that nothing is sealed.
 *
 *     <runtime directory>/sealing/<migration>-<epoch>            at the source: RAM sender -> multifd workers
 *     <runtime directory>/incoming/<migration>-<epoch>.sealing   at the destination: loader -> its successor, VFIO agent
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { isMalformed, json } from "@godwit/protocol";
import * as Schema from "effect/Schema";
import { KEY_BYTES } from "./key-schedule.ts";

/** `key`: the attempt's. */
export type Sealing = { readonly cipher: "none" } | { readonly cipher: "aes-256-gcm"; readonly key: Uint8Array };

export const UNSEALED: Sealing = { cipher: "none" };

const codec = json(
  Schema.Union([
    Schema.Struct({ cipher: Schema.Literal("none") }),
    Schema.Struct({
      cipher: Schema.Literal("aes-256-gcm"),
      key: Schema.String.check(Schema.isPattern(new RegExp(`^[0-9a-f]{${KEY_BYTES * 2}}$`))),
    }),
  ]),
);

const sourceDirectory = (runtimeDirectory: string): string => join(runtimeDirectory, "sealing");
export const sourceSealing = (runtimeDirectory: string, migration: string, epoch: number): string =>
  join(sourceDirectory(runtimeDirectory), `${migration}-${epoch}`);
export const destinationSealing = (runtimeDirectory: string, migration: string, epoch: number): string =>
  join(runtimeDirectory, "incoming", `${migration}-${epoch}.sealing`);

/** Throws what the file system throws. It is there whole or not at all. */
export const writeSealing = (path: string, sealing: Sealing): void => {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const value =
    sealing.cipher === "none" ? sealing : { cipher: sealing.cipher, key: Buffer.from(sealing.key).toString("hex") };
  const unfinished = `${path}.new`;
  rmSync(unfinished, { force: true });
  writeFileSync(unfinished, codec.encode(value), { mode: 0o600, flag: "wx" });
  renameSync(unfinished, path);
};

/** Throws when it is not there, or is not whole. */
export const readSealing = (path: string): Sealing => {
  const value = codec.decode(readFileSync(path));
  if (isMalformed(value)) throw new Error(`${path} does not say how packets are sealed: ${value.malformed}`);
  return value.cipher === "none" ? value : { cipher: value.cipher, key: Buffer.from(value.key, "hex") };
};

export const removeSealing = (path: string): void => rmSync(path, { force: true });

/** Removes those of all attempts of a migration up to this one: a former life of the RAM sender may have left some. */
export const removeSourceSealings = (runtimeDirectory: string, migration: string, epoch: number): void =>
  removeIf(runtimeDirectory, (of, its) => of === migration && its <= epoch);

/** Removes what former lives of a RAM sender have left, but for the migrations that are still at work. */
export const removeSourceSealingsBut = (runtimeDirectory: string, kept: ReadonlySet<string>): void =>
  removeIf(runtimeDirectory, (migration) => !kept.has(migration));

const removeIf = (runtimeDirectory: string, isOver: (migration: string, epoch: number) => boolean): void => {
  const directory = sourceDirectory(runtimeDirectory);
  if (!existsSync(directory)) return;
  for (const name of readdirSync(directory)) {
    const [migration = "", epoch = ""] = name.split("-");
    if (isOver(migration, Number.parseInt(epoch, 10))) removeSealing(join(directory, name));
  }
};
