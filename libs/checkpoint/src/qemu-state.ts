/**
 * What QEMU writes when it hands over its device state with x-ignore-shared, taken apart: the small RAMBlocks that lie in no file of
 * the guest's (firmware, tables, video memory) with their pages, and the sections of its devices, which nobody but QEMU can read.
 */
import * as Bitmap from "@godwit/memory/bitmap";
import { BLOCKS_MAX, DEVICE_STATE_BYTES_MAX, PAGE_BYTES } from "@godwit/protocol";
import { type Cursor, memoryCursor } from "./cursor.ts";
import { IGNORE_SHARED, RAM_FLAG, RAM_SECTION, SECTION } from "./format.ts";
import { MalformedCheckpoint } from "./malformed.ts";
import { readStreamHead } from "./stream-head.ts";

export interface OwnBlock {
  readonly name: string;
  readonly lengthBytes: number;
  readonly present: Bitmap.Bitmap;
  /** The pages that are present, one after the other. */
  readonly pages: Uint8Array;
}

export interface QemuState {
  readonly machine: string;
  /** RAM's number among the sections. */
  readonly ramSection: number;
  /** Lengths of all blocks, in QEMU's order. */
  readonly blocks: ReadonlyArray<{ readonly name: string; readonly lengthBytes: number }>;
  /** The blocks of which pages are in the stream. */
  readonly own: ReadonlyArray<OwnBlock>;
  /** From the first device's section to the end. */
  readonly tail: Uint8Array;
}

interface Block {
  readonly name: string;
  readonly lengthBytes: number;
  /** Made with the first page: a block that lies in a shared file may be as large as the guest. */
  content: Uint8Array | null;
  readonly seen: { bitmap: Bitmap.Bitmap | null };
}

/** Throws MalformedCheckpoint; offsets are those of `stream`. `shared`: the names of the blocks whose pages are not in it. */
export const takeApart = (stream: Uint8Array, shared: ReadonlySet<string>): QemuState => {
  const cursor = memoryCursor(stream);
  const { machine, capabilities } = readStreamHead(cursor, "those of a checkpoint");
  if (!capabilities.includes(IGNORE_SHARED))
    throw new MalformedCheckpoint(cursor.offset(), `the stream was not saved with ${IGNORE_SHARED}`);
  const { ramSection, blocks } = readStart(cursor);
  const owned = new Map(
    blocks.filter(({ name }) => !shared.has(name)).map((block) => [block.name, makeBlock(block)] as const),
  );
  const room = [...owned.values()].reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  if (room > DEVICE_STATE_BYTES_MAX)
    throw new MalformedCheckpoint(
      0,
      `${room} bytes of RAM lie in no shared file; let QEMU have its RAM in one (share=on)`,
    );
  let last = readRecords(cursor, owned, null);
  readFooter(cursor, ramSection);
  for (;;) {
    const at = cursor.offset();
    const type = cursor.peek("a section");
    if (type === SECTION.full)
      return { machine, ramSection, blocks, own: [...owned.values()].map(pack), tail: stream.slice(at) };
    cursor.u8("a section");
    if (type === SECTION.command) {
      cursor.u16("a command");
      cursor.bytes(cursor.u16("its length"), "a command's data");
    } else if (
      (type === SECTION.part || type === SECTION.end) &&
      cursor.u32("the number of a section") === ramSection
    ) {
      last = readRecords(cursor, owned, last);
      readFooter(cursor, ramSection);
    } else {
      throw new MalformedCheckpoint(
        at,
        `section type ${type}: a device sends its state while the guest runs, which a checkpoint cannot hold`,
      );
    }
  }
};

const readStart = (cursor: Cursor): Pick<QemuState, "ramSection" | "blocks"> => {
  const at = cursor.offset();
  if (cursor.u8("a section") !== SECTION.start) throw new MalformedCheckpoint(at, "no section where RAM begins");
  const ramSection = cursor.u32("the number of a section");
  if (cursor.name("its name") !== RAM_SECTION.name)
    throw new MalformedCheckpoint(at, "another section where RAM begins");
  cursor.u32("its instance");
  cursor.u32("its version");
  const record = cursor.u64("the size of RAM");
  if ((record & (PAGE_BYTES - 1)) !== RAM_FLAG.memSize)
    throw new MalformedCheckpoint(cursor.offset() - 8, "no size of RAM");
  const blocks: Array<{ readonly name: string; readonly lengthBytes: number }> = [];
  for (let left = record - RAM_FLAG.memSize; left > 0; ) {
    if (blocks.length === BLOCKS_MAX)
      throw new MalformedCheckpoint(cursor.offset(), `more than ${BLOCKS_MAX} RAMBlocks`);
    const name = cursor.name("the name of a RAMBlock");
    const lengthBytes = cursor.u64("its length");
    cursor.u64("its address");
    if (lengthBytes === 0 || lengthBytes > left)
      throw new MalformedCheckpoint(cursor.offset(), `RAMBlock ${name} of ${lengthBytes} bytes`);
    left -= lengthBytes;
    blocks.push({ name, lengthBytes });
  }
  return { ramSection, blocks };
};

const makeBlock = ({ name, lengthBytes }: { readonly name: string; readonly lengthBytes: number }): Block => ({
  name,
  lengthBytes,
  content: null,
  seen: { bitmap: null },
});

/**
 * Pages, zero pages and flushes up to the end of a section's records. `before` and the result: the block of the record before, which a section
 * may go on with: QEMU ends one after 50 ms, wherever it is.
 */
const readRecords = (cursor: Cursor, owned: ReadonlyMap<string, Block>, before: Block | null): Block | null => {
  let last = before;
  for (;;) {
    const at = cursor.offset();
    // Flags below the page size; the offset above them may need all bits of a double.
    const record = cursor.u64("a RAM record");
    const flags = record % PAGE_BYTES;
    const offset = record - flags;
    const kind = flags & ~RAM_FLAG.continue;
    if (kind === RAM_FLAG.eos) return last;
    if (kind === RAM_FLAG.multifdFlush) continue;
    if (kind !== RAM_FLAG.page && kind !== RAM_FLAG.zero)
      throw new MalformedCheckpoint(at, `RAM record 0x${record.toString(16)}`);
    if ((flags & RAM_FLAG.continue) === 0) {
      const name = cursor.name("the name of a RAMBlock");
      last = owned.get(name) ?? null;
      if (last === null) throw new MalformedCheckpoint(at, `a page of RAMBlock ${name}, which lies in a shared file`);
    }
    if (last === null) throw new MalformedCheckpoint(at, "a page of no RAMBlock");
    if (offset + PAGE_BYTES > last.lengthBytes && !(offset < last.lengthBytes && kind === RAM_FLAG.zero))
      throw new MalformedCheckpoint(
        at,
        `page at ${offset} of RAMBlock ${last.name}, which has ${last.lengthBytes} bytes`,
      );
    last.content ??= new Uint8Array(last.lengthBytes);
    last.seen.bitmap ??= Bitmap.make(last.lengthBytes / PAGE_BYTES);
    if (kind === RAM_FLAG.zero) {
      cursor.u8("the value of a zero page");
      last.content.fill(0, offset, offset + PAGE_BYTES);
      Bitmap.clearRange(last.seen.bitmap, offset / PAGE_BYTES, 1);
    } else {
      last.content.set(cursor.bytes(PAGE_BYTES, "a page"), offset);
      Bitmap.setRange(last.seen.bitmap, offset / PAGE_BYTES, 1);
    }
  }
};

const readFooter = (cursor: Cursor, ramSection: number): void => {
  const at = cursor.offset();
  if (cursor.u8("a footer") !== SECTION.footer || cursor.u32("a footer") !== ramSection)
    throw new MalformedCheckpoint(at, "no footer behind a RAM section");
};

const pack = ({ name, lengthBytes, content, seen }: Block): OwnBlock => {
  const present = seen.bitmap ?? Bitmap.make(lengthBytes / PAGE_BYTES);
  const pages = new Uint8Array(Bitmap.count(present) * PAGE_BYTES);
  let to = 0;
  for (let page = 0; page < present.pageCount; page++) {
    if (!Bitmap.test(present, page)) continue;
    pages.set(content!.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES), to);
    to += PAGE_BYTES;
  }
  return { name, lengthBytes, present, pages };
};
