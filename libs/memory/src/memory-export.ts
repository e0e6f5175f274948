/**
 * Where multifd workers find what they are asked to send: `<runtime directory>/ram/<migration>/<epoch>-<block>` is a link to the
 * file behind a block, `<epoch>-device` the saved device state, `<epoch>-xbzrle` what was sent of pages. A work item names only numbers, so a forged one cannot point a
 * worker at any other file of the host. Beside them `to-<node>` names the node that it all goes to: whoever asks for what is another's
 * gets nothing, whatever numbers he knows.
 */
import { closeSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createRamFile } from "@godwit/host";
import { PAGE_BYTES, type RamBlock } from "./ram-block.ts";

/** Whose exports: of what leaves the host's guests (the RAM sender's), or of what a restore fills (the loader's). Each clears its own when it starts. */
export type ExportFolder = "ram" | "fill";

const directoryOf = (runtimeDirectory: string, migration: string, folder: ExportFolder = "ram"): string =>
  join(runtimeDirectory, folder, migration);

export const blockExport = (
  runtimeDirectory: string,
  migration: string,
  epoch: number,
  block: number,
  folder: ExportFolder = "ram",
): string => join(directoryOf(runtimeDirectory, migration, folder), `${epoch}-${block}`);

export const deviceStateExport = (runtimeDirectory: string, migration: string, epoch: number): string =>
  join(directoryOf(runtimeDirectory, migration), `${epoch}-device`);

/** Capability `xbzrle`: what workers have sent of pages, by slot; the RAM sender makes it. */
export const sentPagesExport = (runtimeDirectory: string, migration: string, epoch: number): string =>
  join(directoryOf(runtimeDirectory, migration), `${epoch}-xbzrle`);

/** The checkpoint that a save writes, or a restore reads. */
export const checkpointExport = (runtimeDirectory: string, id: string, folder: ExportFolder): string =>
  join(directoryOf(runtimeDirectory, id, folder), "checkpoint");

/** The gate of a round of a save or restore: workers copy pages only while they are within it. */
export const gateExport = (runtimeDirectory: string, id: string, round: number, folder: ExportFolder): string =>
  join(directoryOf(runtimeDirectory, id, folder), `gate-${round}`);

/** A stream of a VFIO device's state, as far as it was read; the VFIO agent makes it. */
export const deviceStreamExport = (
  runtimeDirectory: string,
  migration: string,
  epoch: number,
  stream: number,
): string => join(runtimeDirectory, "vfio", migration, `${epoch}-${stream}`);

/** An exported block as far as a worker knows it: from its offset to the end of its file. What lies beyond cannot be reached. */
export const exportedBlock = (path: string, fileOffset: number): RamBlock => {
  const lengthBytes = Math.max(0, Math.floor((statSync(path).size - fileOffset) / PAGE_BYTES) * PAGE_BYTES);
  return { name: path, lengthBytes, hostPageBytes: PAGE_BYTES, path, fileOffset };
};

/** Makes the links of one attempt. Throws what the file system throws. */
export const exportBlocks = (
  runtimeDirectory: string,
  migration: string,
  epoch: number,
  blocks: ReadonlyArray<RamBlock>,
  folder: ExportFolder = "ram",
): void => {
  mkdirSync(directoryOf(runtimeDirectory, migration, folder), { recursive: true, mode: 0o700 });
  blocks.forEach((block, index) => {
    const path = blockExport(runtimeDirectory, migration, epoch, index, folder);
    rmSync(path, { force: true });
    symlinkSync(block.path, path);
  });
};

/**
 * Makes the file for so many sent pages: sparse, and gone with the exports. Throws what the file system throws, and HostError with ENOSPC where
 * there is no room for all of it.
 */
export const exportSentPages = (runtimeDirectory: string, migration: string, epoch: number, slots: number): void => {
  const path = sentPagesExport(runtimeDirectory, migration, epoch);
  rmSync(path, { force: true });
  closeSync(createRamFile(path, slots * PAGE_BYTES));
};

const addressOf = (runtimeDirectory: string, folder: "ram" | "vfio", migration: string, destination: string): string =>
  join(runtimeDirectory, folder, migration, `to-${destination}`);

/** Says where the exports of a migration go, before any worker is asked for them. Throws what the file system throws. */
export const addressExport = (
  runtimeDirectory: string,
  folder: "ram" | "vfio",
  migration: string,
  destination: string,
): void => {
  mkdirSync(join(runtimeDirectory, folder, migration), { recursive: true, mode: 0o700 });
  writeFileSync(addressOf(runtimeDirectory, folder, migration, destination), "", { mode: 0o600 });
};

/** Whether they go to that node. */
export const isAddressedTo = (
  runtimeDirectory: string,
  folder: "ram" | "vfio",
  migration: string,
  destination: string,
): boolean => existsSync(addressOf(runtimeDirectory, folder, migration, destination));

/** Whether an attempt's blocks are exported already. */
export const isExported = (runtimeDirectory: string, migration: string, epoch: number): boolean =>
  existsSync(blockExport(runtimeDirectory, migration, epoch, 0));

/** The migrations, saves and restores whose memory workers may read or write now: those that this host works on. */
export const exportedIds = (runtimeDirectory: string, folder: ExportFolder): ReadonlyArray<string> =>
  existsSync(join(runtimeDirectory, folder)) ? readdirSync(join(runtimeDirectory, folder)) : [];

/** Lets workers find a checkpoint. Throws what the file system throws. */
export const exportCheckpoint = (runtimeDirectory: string, id: string, folder: ExportFolder, path: string): void => {
  mkdirSync(directoryOf(runtimeDirectory, id, folder), { recursive: true, mode: 0o700 });
  symlinkSync(path, checkpointExport(runtimeDirectory, id, folder));
};

/** Removes the exports of all migrations, or restores: for an actor that starts, and has none. */
export const withdrawAllExports = (runtimeDirectory: string, folder: ExportFolder = "ram"): void => {
  rmSync(join(runtimeDirectory, folder), { recursive: true, force: true });
};

/** Removes everything a migration exported, device state included. */
export const withdrawExports = (runtimeDirectory: string, migration: string, folder: ExportFolder = "ram"): void => {
  rmSync(directoryOf(runtimeDirectory, migration, folder), { recursive: true, force: true });
};
