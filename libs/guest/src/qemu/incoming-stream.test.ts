import { PAGE_BYTES } from "@godwit/memory";
import { assert, describe, it } from "vitest";
import * as Words from "./incoming-stream.ts";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const FOOTER = "7effff0001";
const EOS = "0000000000000010";

describe("the words of a stream into a QEMU", () => {
  it("begin with what both sides must be", () => {
    const text = Words.head("pc-i440fx-10.0");
    assert.strictEqual(hex(text.subarray(0, 13)), "5145564d00000003070000000e");
    assert.strictEqual(text.toString("latin1", 13, 27), "pc-i440fx-10.0");
    // No capability is named, and the page size always.
    assert.strictEqual(text.toString("latin1", 29, 59), "configuration/target-page-bits");
    assert.strictEqual(hex(text.subarray(59)), "000000010000000c");
  });

  it("give each command its length", () => {
    assert.strictEqual(hex(Words.openReturnPath), "0800010000");
    assert.strictEqual(hex(Words.ping(7)), "080002000400000007");
    assert.strictEqual(hex(Words.advise([])), "080003001000000000000010000000000000001000");
    const sizes = [{ hostPageBytes: 4096 }, { hostPageBytes: 2 ** 21 }, { hostPageBytes: 2 ** 21 }];
    assert.strictEqual(hex(Words.advise(sizes)), "080003001000000000002010000000000000001000");
    assert.strictEqual(hex(Words.askReceived("ram0")), "08000a00050472616d30");
    assert.strictEqual(hex(Words.listen), "0800040000");
    assert.strictEqual(hex(Words.run), "0800050000");
    assert.strictEqual(hex(Words.resume), "0800090000");
    assert.strictEqual(
      hex(Words.discard("bios", 2, 1)),
      "08000600170004" + "62696f73" + "00" + "0000000000002000" + "0000000000001000",
    );
    assert.strictEqual(hex(Words.packaged(Words.run)), "0800070004000000050800050000");
  });

  it("name all RAMBlocks, and the sum of their lengths", () => {
    const start = Words.ramStart([
      { name: "ram0", lengthBytes: 0x2000 },
      { name: "bios", lengthBytes: 0x1000 },
    ]);
    assert.strictEqual(
      hex(start),
      "01ffff00010372616d00000000000000040000000000003004" +
        "0472616d300000000000002000" +
        "0462696f730000000000001000" +
        EOS +
        FOOTER,
    );
    assert.strictEqual(hex(Words.ramEnd), `03ffff0001${EOS}${FOOTER}`);
    // Of large host pages their size, too.
    const huge = Words.ramStart([{ name: "ram0", lengthBytes: 0x20_0000, hostPageBytes: 0x20_0000 }]);
    assert.include(hex(huge), `0472616d30${"0000000000200000"}${"0000000000200000"}${EOS}`);
  });

  it("name the block of pages once, and give zero pages no content", () => {
    assert.strictEqual(
      hex(Words.pagesPart("ram0", 3, 2, null)),
      `02ffff0001${"0000000000003002"}0472616d3000${"0000000000004022"}00${EOS}${FOOTER}`,
    );
    const content = Buffer.alloc(2 * PAGE_BYTES, 7);
    content.fill(9, PAGE_BYTES);
    const part = Words.pagesPart("ram0", 0, 2, content);
    assert.strictEqual(hex(part.subarray(0, 18)), "02ffff0001" + "0000000000000008" + "0472616d30");
    assert.isTrue(part.subarray(18, 18 + PAGE_BYTES).every((byte) => byte === 7));
    const second = 18 + PAGE_BYTES;
    assert.strictEqual(hex(part.subarray(second, second + 8)), "0000000000001028");
    assert.isTrue(part.subarray(second + 8, second + 8 + PAGE_BYTES).every((byte) => byte === 9));
    assert.strictEqual(hex(part.subarray(second + 8 + PAGE_BYTES)), EOS + FOOTER);
    assert.throws(() => Words.pagesPart("x".repeat(256), 0, 1, null), RangeError);
  });
});
