import { MalformedCheckpoint } from "@godwit/checkpoint/qemu-stream";
import { PAGE_BYTES } from "@godwit/memory";
import { assert, describe, it } from "vitest";
import { pagesPart, ramStart } from "./incoming-stream.ts";
import { readSavedState } from "./saved-state.ts";

const u8 = (value: number) => Buffer.from([value]);
const u32 = (value: number) => Buffer.from([value >>> 24, value >>> 16, value >>> 8, value]);
const u64 = (value: number) => Buffer.concat([u32(0), u32(value)]);
const name = (text: string) => Buffer.concat([u8(text.length), Buffer.from(text)]);

const SECTIONS = Buffer.concat([u8(4), u32(3), name("timer"), u32(0), u32(2), u8(42), u8(0x7e), u32(3)]);
const description = Buffer.from("{}");
const END = Buffer.concat([u8(0), u8(6), u32(description.length), description]);
const EOS = Buffer.concat([u64(0x10), u8(0x7e), u32(1)]);
const page = Buffer.alloc(PAGE_BYTES, 7);

/** A guest with RAM in a shared file and a BIOS of 4 pages, of which the third is not zero. */
const saved = (end: Uint8Array): Buffer =>
  Buffer.concat([
    Buffer.from("5145564d0000000307", "hex"),
    ...[u32(2), Buffer.from("pc"), u8(5), name("configuration/capabilities"), u32(1), u32(1), name("x-ignore-shared")],
    ...[u8(1), u32(1), name("ram"), u32(0), u32(4), u64(0x8000 | 4)],
    ...[name("ram0"), u64(0x4000), u64(0), name("bios"), u64(0x4000), u64(0xfffc_0000), EOS],
    ...[u8(2), u32(1), u64(0x2000 | 8), name("bios"), page, u64(0x0000 | 0x22), u8(0), EOS],
    ...[u8(8), Buffer.from([0, 11, 0, 0]), u8(3), u32(1), EOS, SECTIONS, end],
  ]);

const SHARED = new Map([["ram0", PAGE_BYTES]]);

describe("a saved device state", () => {
  it("is said again with every page of the blocks that lie in no file, and none of the others", () => {
    const state = readSavedState(saved(END), SHARED);
    assert.deepStrictEqual(
      Buffer.from(state.start),
      ramStart([
        { name: "ram0", lengthBytes: 0x4000 },
        { name: "bios", lengthBytes: 0x4000 },
      ]),
    );
    assert.deepStrictEqual(state.ownBlocks, ["bios"]);
    assert.deepStrictEqual(state.ownPages, [
      pagesPart("bios", 0, 2, null),
      pagesPart("bios", 2, 1, page),
      pagesPart("bios", 3, 1, null),
    ]);
    assert.deepStrictEqual(Buffer.from(state.sections), SECTIONS);
    assert.deepStrictEqual(Buffer.from(state.tail), Buffer.concat([SECTIONS, END]));
  });

  it("names the host pages of the blocks that lie in shared files", () => {
    const { start } = readSavedState(saved(END), new Map([["ram0", 0x4000]]));
    const blocks = [
      { name: "ram0", lengthBytes: 0x4000, hostPageBytes: 0x4000 },
      { name: "bios", lengthBytes: 0x4000 },
    ];
    assert.deepStrictEqual(Buffer.from(start), ramStart(blocks));
  });

  it("may go on in a section with the block of the one before", () => {
    const bytes = saved(END);
    const within = Buffer.concat([u64(0x0000 | 0x22), u8(0)]);
    const at = bytes.indexOf(within);
    const cut = Buffer.concat([bytes.subarray(0, at), EOS, u8(2), u32(1), bytes.subarray(at)]);
    assert.deepStrictEqual(readSavedState(cut, SHARED), readSavedState(bytes, SHARED));
    const first = bytes.indexOf(Buffer.concat([u64(0x2000 | 8), name("bios")]));
    const unnamed = Buffer.concat([bytes.subarray(0, first), within, bytes.subarray(first)]);
    assert.throws(() => readSavedState(unnamed, SHARED), "a page of no RAMBlock");
  });

  it("may lack the description of its devices, but no end", () => {
    assert.deepStrictEqual(Buffer.from(readSavedState(saved(u8(0)), SHARED).sections), SECTIONS);
    assert.throws(() => readSavedState(saved(u8(9)), SHARED), MalformedCheckpoint);
  });
});
