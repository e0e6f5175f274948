/** A small checkpoint in a directory of the test's own. */
import { closeSync, openSync, writeSync } from "node:fs";
import * as Bitmap from "@godwit/memory/bitmap";
import { PAGE_BYTES } from "@godwit/protocol";
import { builtinTail } from "./device-sections.ts";
import { RAM_SECTION_ID } from "./format.ts";
import { openWriter } from "./writer.ts";

export interface Example {
  readonly path: string;
  readonly id?: string;
  readonly start?: number;
  readonly blocks: ReadonlyArray<{
    readonly name: string;
    readonly pages: number;
    readonly stored: ReadonlyArray<number>;
  }>;
  readonly state?: Uint8Array;
}

/** What page `page` of block `block` holds in it. */
export const contentOf = (block: number, page: number): Uint8Array =>
  new Uint8Array(PAGE_BYTES).fill(1 + ((block * 31 + page) % 255));

export const writeExample = ({
  path,
  id = "1",
  start = 0,
  blocks,
  state = Buffer.from("state"),
}: Example): Promise<number> => {
  const sizes = blocks.map(({ name, pages }) => ({ name, lengthBytes: pages * PAGE_BYTES }));
  const writer = openWriter({ path, id, machine: "pc-i440fx-10.0", start, blocks: sizes, ramSection: RAM_SECTION_ID });
  const fd = openSync(writer.partialPath, "r+");
  const content = blocks.map(({ name, pages, stored }, index) => {
    const present = Bitmap.make(pages);
    for (const page of stored) {
      Bitmap.setRange(present, page, 1);
      writeSync(
        fd,
        contentOf(index, page),
        0,
        PAGE_BYTES,
        writer.layout.blocks[index]!.pagesOffset + page * PAGE_BYTES,
      );
    }
    return { name, lengthBytes: pages * PAGE_BYTES, present };
  });
  closeSync(fd);
  return writer.finish({ ramSection: RAM_SECTION_ID, blocks: content, tail: builtinTail(state) });
};
