import fc from "fast-check";
import { assert, describe, it } from "vitest";
import { builtinTail, DESCRIPTION_BYTES_MAX, describedDevices, deviceSections } from "./device-sections.ts";
import { SECTION } from "./format.ts";
import { u8, u32 } from "./stream-words.ts";

/** Cases in `npm test`; FUZZ_RUNS=100000 for longer. */
const FUZZ_RUNS = Number(process.env["FUZZ_RUNS"] ?? 1000);

/** A tail of one device without a state, and this for its description. */
const tailWith = (description: string | Uint8Array): Uint8Array => {
  const bytes = Buffer.from(description as string);
  return Buffer.concat([u8(SECTION.full), u8(SECTION.eof), u8(SECTION.description), u32(bytes.length), bytes]);
};
const named = (length: number): string => {
  const [start, end] = ['{"devices":[{"name":"', '"}]}'];
  return `${start}${"n".repeat(length - start.length - end.length)}${end}`;
};
const nested = (depth: number): string => `{"devices":[{"fields":${"[".repeat(depth)}${"]".repeat(depth)}}]}`;
const withFields = (count: number): string =>
  `{"devices":[{"name":"ram","fields":[${Array(count).fill('{"size":1}').join(",")}]}]}`;

describe("the description of a checkpoint's devices", () => {
  it("names them, with their sizes", () => {
    assert.deepStrictEqual(describedDevices(builtinTail(new Uint8Array(7))), [
      { name: "godwit-builtin", instance: 0, version: 1, bytes: 7 },
    ]);
    assert.deepStrictEqual(describedDevices(tailWith(withFields(1000)))?.[0]?.bytes, 1000);
  });

  it("is none when it is longer than one can be, or made of what takes long to parse", () => {
    assert.lengthOf(describedDevices(tailWith(named(DESCRIPTION_BYTES_MAX)))!, 1);
    assert.isNull(describedDevices(tailWith(named(DESCRIPTION_BYTES_MAX + 1))));
    assert.lengthOf(describedDevices(tailWith(nested(50)))!, 1);
    assert.isNull(describedDevices(tailWith(nested(1000))));
    assert.lengthOf(describedDevices(tailWith(withFields(50_000)))!, 1);
    assert.isNull(describedDevices(tailWith(withFields(100_000))));
  });

  it("leads back to the sections before it, also where they look like a description", () => {
    const sections = Buffer.concat([u8(SECTION.full), tailWith("{}"), Buffer.alloc(9, SECTION.eof)]);
    const tail = Buffer.concat([sections, tailWith('{"devices":[]}').subarray(1)]);
    assert.deepStrictEqual(deviceSections(tail), sections);
  });

  it("is devices or none, whatever stands there", () => {
    const text = fc.string({
      unit: fc.constantFrom(
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        '"',
        "0",
        "1e999",
        "null",
        "devices",
        "fields",
        "size",
        "\0\u0006",
      ),
      maxLength: 60,
    });
    const device = fc.record(
      {
        name: fc.jsonValue(),
        instance_id: fc.jsonValue(),
        version: fc.jsonValue(),
        fields: fc.oneof(fc.jsonValue(), fc.array(fc.record({ size: fc.jsonValue(), array_len: fc.jsonValue() }))),
      },
      { requiredKeys: [] },
    );
    const json = fc.oneof(fc.jsonValue(), fc.record({ devices: fc.array(device, { maxLength: 5 }) }));
    fc.assert(
      fc.property(
        fc.oneof(
          text,
          json.map((value) => JSON.stringify(value)),
        ),
        fc.uint8Array({ maxLength: 20 }),
        (description, before) => {
          const tail = Buffer.concat([before, tailWith(description)]);
          for (const { name, bytes } of describedDevices(tail) ?? []) {
            assert.isString(name);
            assert.isTrue(bytes === null || Number.isFinite(bytes));
          }
        },
      ),
      { numRuns: FUZZ_RUNS },
    );
  });
});
