/**
 * Where multifd workers find what they are asked to send: `<runtime directory>/ram/<migration>/<epoch>-<block>` is a link to the
 * file behind a block, `<epoch>-device` the saved device state. A work item names only numbers, so a forged one cannot point a
 * worker at any other file of the host.
 */
import { mkdirSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import type { RamBlock } from "./ram-block.ts";

const directoryOf = (runtimeDirectory: string, migration: string): string => join(runtimeDirectory, "ram", migration);

export const blockExport = (runtimeDirectory: string, migration: string, epoch: number, block: number): string =>
  join(directoryOf(runtimeDirectory, migration), `${epoch}-${block}`);

export const deviceStateExport = (runtimeDirectory: string, migration: string, epoch: number): string =>
  join(directoryOf(runtimeDirectory, migration), `${epoch}-device`);

/** Makes the links of one attempt. Throws what the file system throws. */
export const exportBlocks = (
  runtimeDirectory: string,
  migration: string,
  epoch: number,
  blocks: ReadonlyArray<RamBlock>,
): void => {
  mkdirSync(directoryOf(runtimeDirectory, migration), { recursive: true, mode: 0o700 });
  blocks.forEach((block, index) => {
    const path = blockExport(runtimeDirectory, migration, epoch, index);
    rmSync(path, { force: true });
    symlinkSync(block.path, path);
  });
};

/** Removes the exports of all migrations: for a sender that starts, and has none. */
export const withdrawAllExports = (runtimeDirectory: string): void => {
  rmSync(join(runtimeDirectory, "ram"), { recursive: true, force: true });
};

/** Removes everything a migration exported, device state included. */
export const withdrawExports = (runtimeDirectory: string, migration: string): void => {
  rmSync(directoryOf(runtimeDirectory, migration), { recursive: true, force: true });
};
