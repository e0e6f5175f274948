import { assert, describe, it } from "vitest";
import { memoryCursor } from "./cursor.ts";
import { MalformedCheckpoint } from "./malformed.ts";
import { readStreamHead } from "./stream-head.ts";
import { shortText, text, u8, u32 } from "./stream-words.ts";

const configuration = (...subsections: ReadonlyArray<Uint8Array>) =>
  Buffer.concat([text("QEVM"), u32(3), u8(7), u32(2), text("pc"), ...subsections, u8(1)]);
const subsection = (name: string, payload: Uint8Array) =>
  Buffer.concat([u8(5), shortText(`configuration/${name}`), u32(1), payload]);
const capabilities = (...names: ReadonlyArray<string>) =>
  subsection("capabilities", Buffer.concat([u32(names.length), ...names.map(shortText)]));
const pageBits = subsection("target-page-bits", u32(12));
const uuid = subsection("uuid", Buffer.alloc(16, 5));

describe("the head of a migration stream", () => {
  it("has machine type and capabilities, whatever stands beside these", () => {
    for (const subsections of [
      [capabilities("mapped-ram")],
      [pageBits, capabilities("mapped-ram")],
      [capabilities("mapped-ram"), uuid],
    ]) {
      const cursor = memoryCursor(configuration(...subsections));
      assert.deepStrictEqual(readStreamHead(cursor, "any"), { machine: "pc", capabilities: ["mapped-ram"] });
      assert.strictEqual(cursor.u8("the next section"), 1);
    }
    assert.deepStrictEqual(readStreamHead(memoryCursor(configuration()), "any").capabilities, []);
  });

  it.each([
    ["has what a checkpoint would lose", [pageBits, capabilities("mapped-ram")], "those of a checkpoint"],
    ["has what is not known, and so how long it is", [subsection("new", u32(1))], "any"],
    ["says the same thing twice, so that no file is read for ever", [uuid, uuid], "any"],
    ["has capabilities without end", [subsection("capabilities", u32(65))], "any"],
    ["ends within its capabilities", [subsection("capabilities", u32(2))], "any"],
  ] as const)("is refused when it %s", (_, subsections, how) => {
    assert.throws(() => readStreamHead(memoryCursor(configuration(...subsections)), how), MalformedCheckpoint);
  });
});
