import { PAGE_BYTES } from "@godwit/memory";
import * as Bitmap from "@godwit/memory/bitmap";
import { assert, describe, it } from "vitest";
import { pagesPart, ping } from "./incoming-stream.ts";
import * as Placements from "./placements.ts";

const BLOCKS = [
  { name: "ram0", pages: 1000, hostPages: 1 },
  { name: "ram1", pages: 4, hostPages: 1 },
];
const content = (pages: number, value: number): Uint8Array => new Uint8Array(pages * PAGE_BYTES).fill(value);
const FIRST = 0x1_0001;
const part = (first: number, pages: number, bytes: Uint8Array | null, number: number, block = "ram0"): Buffer =>
  Buffer.concat([pagesPart(block, first, pages, bytes), ping(number)]);

describe("pages on their way into a QEMU", () => {
  it("go once, however often they are placed", () => {
    const placements = Placements.make(BLOCKS);
    const two = content(2, 7);
    assert.deepStrictEqual(Placements.place(placements, 0, 10, 2, two), [part(10, 2, two, FIRST)]);
    assert.isEmpty(Placements.place(placements, 0, 10, 2, content(2, 9)));
    // Around them.
    const four = content(4, 8);
    assert.deepStrictEqual(Placements.place(placements, 0, 9, 4, four), [
      part(9, 1, content(1, 8), FIRST + 1),
      part(12, 1, content(1, 8), FIRST + 2),
    ]);
    assert.deepStrictEqual(Placements.place(placements, 1, 0, 4, null), [part(0, 4, null, FIRST + 3, "ram1")]);
    assert.throws(() => Placements.place(placements, 1, 3, 2, null), RangeError);
    assert.throws(() => Placements.place(placements, 2, 0, 1, null), RangeError);
  });

  it("are cut so that a section is short", () => {
    const placements = Placements.make(BLOCKS);
    assert.lengthOf(Placements.place(placements, 0, 0, 600, null), 3);
  });

  it("of large host pages go as a whole, with one ping behind all of them, and never in parts", () => {
    const placements = Placements.make([{ name: "ram0", pages: 2048, hostPages: 512 }]);
    const bytes = content(512, 5);
    assert.deepStrictEqual(Placements.place(placements, 0, 512, 512, bytes), [part(512, 512, bytes, FIRST)]);
    const rest = Placements.place(placements, 0, 0, 2048, null);
    assert.deepStrictEqual(
      rest,
      [0, 1024, 1536].map((first, n) => part(first, 512, null, FIRST + 1 + n)),
    );
    for (const [first, pages] of [
      [1, 512],
      [0, 511],
    ] as const)
      assert.throws(() => Placements.place(placements, 0, first, pages, null), RangeError);
  });

  it("count until QEMU has them", () => {
    const placements = Placements.make(BLOCKS);
    for (const page of [1, 2, 3]) Placements.place(placements, 0, page, 1, content(1, page));
    assert.strictEqual(placements.bytesOnTheirWay, 3 * PAGE_BYTES);
    Placements.answered(placements, FIRST + 1);
    assert.strictEqual(placements.bytesOnTheirWay, PAGE_BYTES);
    // One of a handshake, or said twice.
    for (const pong of [1, FIRST]) Placements.answered(placements, pong);
    assert.strictEqual(placements.bytesOnTheirWay, PAGE_BYTES);
    Placements.answered(placements, FIRST + 2);
    assert.strictEqual(placements.bytesOnTheirWay, 0);
    assert.isEmpty(placements.onTheirWay);
  });

  it("go again when their connection broke, unless they had arrived before it did", () => {
    const placements = Placements.make(BLOCKS);
    Placements.place(placements, 0, 0, 1, content(1, 1));
    Placements.place(placements, 0, 5, 3, content(3, 5));
    Placements.place(placements, 0, 9, 1, null);
    Placements.answered(placements, FIRST);
    const received = BLOCKS.map(({ pages }) => Bitmap.make(pages));
    Bitmap.setRange(received[0]!, 0, 6);
    assert.deepStrictEqual(Placements.goOn(placements, received), [
      part(6, 2, content(2, 5), FIRST + 3),
      part(9, 1, null, FIRST + 4),
    ]);
    assert.strictEqual(placements.bytesOnTheirWay, 2 * PAGE_BYTES);
    received.forEach(Bitmap.setAll);
    assert.isEmpty(Placements.goOn(placements, received));
    assert.isEmpty(Placements.place(placements, 0, 5, 3, content(3, 5)));
  });
});
