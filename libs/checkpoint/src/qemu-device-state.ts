/** The device state of a QEMU's checkpoint, for a guest whose memory comes by another way than its devices. */
import * as Bitmap from "@godwit/memory/bitmap";
import { DEVICE_STATE_BYTES_MAX, PAGE_BYTES } from "@godwit/protocol";
import {
  CAPABILITIES_SUBSECTION,
  IGNORE_SHARED,
  RAM_FLAG,
  RAM_SECTION,
  SECTION,
  STREAM_MAGIC,
  STREAM_VERSION,
} from "./format.ts";
import { MalformedCheckpoint } from "./malformed.ts";
import type { OwnBlock, QemuState } from "./qemu-state.ts";
import type { Checkpoint } from "./reader.ts";
import { readStoredPages } from "./stored-pages.ts";
import { shortText, text, u8, u32, u64 } from "./stream-words.ts";

/**
 * How a stream leaves pages out. `x-ignore-shared`: as QEMU itself hands its devices over, for `takeApart`; QEMU would refuse it where a
 * block has another address than 0 in its machine. `not sent`: a plain stream in which they never come; QEMU, which reads it with all
 * capabilities off, leaves those pages as they are.
 */
export type PagesLeftOut = "x-ignore-shared" | "not sent";

/**
 * `fd`: the checkpoint's file. `shared`: the names of the blocks whose pages come by themselves; those of all others are in the result.
 * Rejects with MalformedCheckpoint when these are more than a device state can hold.
 */
export const qemuDeviceState = async (
  fd: number,
  { machine, ramSection, blocks, tail }: Checkpoint,
  shared: ReadonlySet<string>,
  leftOut: PagesLeftOut,
): Promise<Uint8Array> => {
  const stored = blocks.filter(({ name }) => !shared.has(name));
  const bytes = stored.reduce((sum, { presentPages }) => sum + presentPages * PAGE_BYTES, tail.length);
  if (bytes > DEVICE_STATE_BYTES_MAX)
    throw new MalformedCheckpoint(0, `${bytes} bytes of devices and of RAM that is not the guest's own`);
  const own: OwnBlock[] = [];
  for (const block of stored) {
    const pages = new Uint8Array(block.presentPages * PAGE_BYTES);
    let at = 0;
    for (let run = Bitmap.nextRun(block.present, 0, block.pages); run !== null; ) {
      const end = at + run.count * PAGE_BYTES;
      await readStoredPages(fd, block, run.first, pages.subarray(at, end));
      at = end;
      run = Bitmap.nextRun(block.present, run.first + run.count, block.pages);
    }
    own.push({ name: block.name, lengthBytes: block.lengthBytes, present: block.present, pages });
  }
  return putTogether({ machine, ramSection, blocks, own, tail }, leftOut);
};

/** `takeApart` the other way round. */
export const putTogether = (
  { machine, ramSection, blocks, own, tail }: QemuState,
  leftOut: PagesLeftOut,
): Uint8Array => {
  const ignoresShared = leftOut === "x-ignore-shared";
  const total = blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  const type = text(machine);
  return Buffer.concat([
    ...[u32(STREAM_MAGIC), u32(STREAM_VERSION)],
    ...[u8(SECTION.configuration), u32(type.length), type],
    ...(ignoresShared
      ? [u8(SECTION.subsection), shortText(CAPABILITIES_SUBSECTION), u32(1), u32(1), shortText(IGNORE_SHARED)]
      : []),
    ...[u8(SECTION.start), u32(ramSection), shortText(RAM_SECTION.name), u32(RAM_SECTION.instance)],
    ...[u32(RAM_SECTION.version), u64(total + RAM_FLAG.memSize)],
    ...blocks.flatMap(({ name, lengthBytes }) => [
      ...[shortText(name), u64(lengthBytes)],
      // Its address, which only who reads pages of their own looks at.
      ...(ignoresShared ? [u64(0)] : []),
    ]),
    ...own.flatMap(recordsOf),
    ...[u64(RAM_FLAG.eos), u8(SECTION.footer), u32(ramSection)],
    tail,
  ]);
};

const recordsOf = ({ name, present, pages }: OwnBlock): ReadonlyArray<Uint8Array> => {
  const records: Uint8Array[] = [];
  let at = 0;
  for (let page = 0; page < present.pageCount; page++) {
    if (!Bitmap.test(present, page)) continue;
    records.push(u64(page * PAGE_BYTES + RAM_FLAG.page), shortText(name), pages.subarray(at, at + PAGE_BYTES));
    at += PAGE_BYTES;
  }
  return records;
};
