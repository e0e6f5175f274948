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
import type { Checkpoint, StoredBlock } from "./reader.ts";
import { readStoredPages } from "./stored-pages.ts";
import { shortText, text, u8, u32, u64 } from "./stream-words.ts";

/**
 * How a stream leaves pages out. `x-ignore-shared`: as QEMU itself hands its devices over, for `takeApart`; QEMU would refuse it where a
 * block has another address than 0 in its machine. `not sent`: a plain stream in which they never come; QEMU, which reads it with no
 * capability that changes a stream, leaves those pages as they are.
 */
export type PagesLeftOut = "x-ignore-shared" | "not sent";

/**
 * The blocks whose pages do not come by themselves. Throws MalformedCheckpoint when they are longer than a device state can be: what is
 * done for each of their pages is done in one go.
 */
export const ownBlocks = ({ blocks }: Checkpoint, shared: ReadonlySet<string>): ReadonlyArray<StoredBlock> => {
  const own = blocks.filter(({ name }) => !shared.has(name));
  const room = own.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  if (room > DEVICE_STATE_BYTES_MAX)
    throw new MalformedCheckpoint(
      0,
      `${room} bytes of RAM lie in no shared file of the QEMU that waits, at most ${DEVICE_STATE_BYTES_MAX} are taken; let it have its RAM in one (share=on), with the ids that the checkpoint has (godwit inspect)`,
    );
  return own;
};

/**
 * `fd`: the checkpoint's file. `shared`: the names of the blocks whose pages come by themselves; those of all others are in the result.
 * Rejects with MalformedCheckpoint when these are more than a device state can hold.
 */
export const qemuDeviceState = async (
  fd: number,
  checkpoint: Checkpoint,
  shared: ReadonlySet<string>,
  leftOut: PagesLeftOut,
): Promise<Uint8Array> => {
  const { machine, ramSection, blocks, tail } = checkpoint;
  const own: OwnBlock[] = [];
  for (const block of ownBlocks(checkpoint, shared)) {
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
    ...own.flatMap((block) => recordsOf(block, ignoresShared ? "left out" : "sent")),
    ...[u64(RAM_FLAG.eos), u8(SECTION.footer), u32(ramSection)],
    tail,
  ]);
};

/** `zeros`: a QEMU that waits has its firmware in such blocks, and keeps what no record replaces; `takeApart` takes what is missing for zeros. */
const recordsOf = ({ name, present, pages }: OwnBlock, zeros: "sent" | "left out"): ReadonlyArray<Uint8Array> => {
  const records: Uint8Array[] = [];
  let at = 0;
  for (let page = 0; page < present.pageCount; page++) {
    if (Bitmap.test(present, page)) {
      records.push(u64(page * PAGE_BYTES + RAM_FLAG.page), shortText(name), pages.subarray(at, at + PAGE_BYTES));
      at += PAGE_BYTES;
    } else if (zeros === "sent") records.push(u64(page * PAGE_BYTES + RAM_FLAG.zero), shortText(name), u8(0));
  }
  return records;
};
