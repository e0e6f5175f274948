/** Where pages go into a checkpoint, and come out of it: from memory to their places in the file, or back. */
import { closeSync, constants, openSync } from "node:fs";
import { enterGate } from "@godwit/checkpoint";
import { alignedMemory, punchHole, readWhole, writeWhole } from "@godwit/host";
import {
  blockExport,
  checkpointExport,
  type ExportFolder,
  exportedBlock,
  gateExport,
  openRamReader,
  openRamWriter,
  PAGE_BYTES,
  type RamBlock,
  type RamReader,
  type RamWriter,
  stretches,
} from "@godwit/memory";
import { FILE_ITEM_PAGES_MAX, type FileAnswer, type FileItem } from "@godwit/protocol";
import { sumPages, zeroMapOf } from "./kernel/file-pages.ts";

/** Of one save or restore: a few blocks and the file. */
interface OpenFiles {
  readonly checkpoint: number;
  readonly readers: Map<number, RamReader>;
  readonly writers: Map<number, RamWriter>;
}

/** Saves and restores whose files are kept open; opening them again costs 50 us. */
const OPEN_MAX = 8;

/** Without an item for so long all are closed, ms: an open file keeps its place on disk, or in memory, after it was removed. */
const IDLE_MS = 2000;

/** Keeps files open between items, and nothing else: any worker can take any item. */
export interface FileCopier {
  /** Copies what the item names; never throws. */
  readonly copy: (item: FileItem) => FileAnswer;
  readonly close: () => void;
}

export const makeFileCopier = (runtimeDirectory: string): FileCopier => {
  const memory = alignedMemory(FILE_ITEM_PAGES_MAX * PAGE_BYTES, PAGE_BYTES);
  const open = new Map<string, OpenFiles>();
  const forget = (key: string): void => {
    const files = open.get(key);
    if (files === undefined) return;
    open.delete(key);
    closeSync(files.checkpoint);
    for (const each of [...files.readers.values(), ...files.writers.values()]) each.close();
  };
  const filesOf = (item: FileItem): OpenFiles => {
    // An item that asks otherwise, forged or not, must not decide how the next one writes.
    const key = `${item.kind} ${item.direct} ${item.id}`;
    const known = open.get(key);
    if (known !== undefined) return known;
    for (const oldest of open.size >= OPEN_MAX ? [...open.keys()].slice(0, 1) : []) forget(oldest);
    const mode = item.kind === "store" ? constants.O_RDWR : constants.O_RDONLY;
    const flags = mode | (item.direct ? constants.O_DIRECT : 0);
    const files = {
      checkpoint: openSync(checkpointExport(runtimeDirectory, item.id, folderOf(item)), flags),
      readers: new Map<number, RamReader>(),
      writers: new Map<number, RamWriter>(),
    };
    open.set(key, files);
    return files;
  };
  const blockOf = (item: FileItem): RamBlock =>
    exportedBlock(blockExport(runtimeDirectory, item.id, 1, item.block, folderOf(item)), item.fileOffset);
  const readerOf = (item: FileItem, { readers }: OpenFiles): RamReader => {
    const known = readers.get(item.block);
    if (known !== undefined && known.block.fileOffset === item.fileOffset) return known;
    known?.close();
    const reader = openRamReader(blockOf(item));
    readers.set(item.block, reader);
    return reader;
  };
  const writerOf = (item: FileItem, { writers }: OpenFiles): RamWriter => {
    const known = writers.get(item.block);
    if (known !== undefined && known.block.fileOffset === item.fileOffset) return known;
    known?.close();
    const writer = openRamWriter(blockOf(item));
    writers.set(item.block, writer);
    return writer;
  };

  const store = (item: FileItem, files: OpenFiles, pages: number): { zeroMap: Uint8Array; sums: Uint32Array } => {
    const reader = readerOf(item, files);
    for (let r = 0, at = 0; r < item.runs.length; at += item.runs[r + 1]!, r += 2)
      reader.readPages(item.runs[r]!, item.runs[r + 1]!, memory, at * PAGE_BYTES);
    const zeroMap = zeroMapOf(memory, pages);
    stretches(item.runs, zeroMap, (first, count, at, isZero) => {
      const offset = item.pagesOffset + first * PAGE_BYTES;
      if (!isZero) writeWhole(files.checkpoint, memory.subarray(at * PAGE_BYTES, (at + count) * PAGE_BYTES), offset);
      else if (item.holes) punchHole(files.checkpoint, offset, count * PAGE_BYTES);
    });
    return { zeroMap, sums: item.sums ? sumPages(memory, pages, zeroMap) : NO_SUMS };
  };

  const fill = (item: FileItem, files: OpenFiles, pages: number): { zeroMap: Uint8Array; sums: Uint32Array } => {
    const writer = writerOf(item, files);
    for (let r = 0, at = 0; r < item.runs.length; at += item.runs[r + 1]!, r += 2) {
      const [first, count] = [item.runs[r]!, item.runs[r + 1]!];
      const offset = item.pagesOffset + first * PAGE_BYTES;
      const wanted = memory.subarray(at * PAGE_BYTES, (at + count) * PAGE_BYTES);
      if (readWhole(files.checkpoint, wanted, offset) < wanted.length)
        throw new Error(`the checkpoint ends before byte ${offset + wanted.length}`);
      writer.writePages(first, count, memory, at * PAGE_BYTES);
    }
    return { zeroMap: NO_ZEROS, sums: item.sums ? sumPages(memory, pages, NO_ZEROS) : NO_SUMS };
  };

  const closeAll = (): void => {
    for (const key of [...open.keys()]) forget(key);
  };
  let idle: NodeJS.Timeout | null = null;
  const touched = (): void => {
    if (idle !== null) return void idle.refresh();
    idle = setTimeout(() => {
      idle = null;
      closeAll();
    }, IDLE_MS);
  };

  return {
    copy: (item) => {
      touched();
      const { id, round } = item;
      const base = { id, round, item: item.item };
      let leave: (() => void) | null = null;
      try {
        leave = enterGate(gateExport(runtimeDirectory, id, round, folderOf(item)));
        if (leave === null) return { ...base, kind: "refused", reason: `round ${round} is over` };
        let pages = 0;
        for (let r = 1; r < item.runs.length; r += 2) pages += item.runs[r]!;
        const files = filesOf(item);
        return {
          ...base,
          kind: "done",
          ...(item.kind === "store" ? store(item, files, pages) : fill(item, files, pages)),
        };
      } catch (error) {
        return { ...base, kind: "refused", reason: error instanceof Error ? error.message : String(error) };
      } finally {
        leave?.();
      }
    },
    close: () => {
      if (idle !== null) clearTimeout(idle);
      closeAll();
    },
  };
};

const folderOf = ({ kind }: FileItem): ExportFolder => (kind === "store" ? "ram" : "fill");

const NO_SUMS = new Uint32Array(0);
const NO_ZEROS = new Uint8Array(0);
