import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, assert, describe, it } from "vitest";
import { MalformedCheckpoint } from "./malformed.ts";
import {
  assemble,
  decodeManifest,
  encodeManifest,
  PART_BYTES_MAX,
  type PartsManifest,
  packPart,
  windowsOf,
} from "./parts.ts";

const directory = mkdtempSync(join(tmpdir(), "godwit-parts-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const MIB = 1024 ** 2;
/** 40 MiB, of which 1 byte at 3 MiB, and 10 MiB from 20 MiB on, are no hole. */
const sparse = (): number => {
  const fd = openSync(join(directory, "sparse"), "w+");
  ftruncateSync(fd, 40 * MIB);
  writeSync(fd, Buffer.of(7), 0, 1, 3 * MIB);
  writeSync(fd, Buffer.alloc(10 * MIB, 9), 0, 10 * MIB, 20 * MIB);
  return fd;
};
const partsOf = async (fd: number) => {
  const made: Array<Awaited<ReturnType<typeof packPart>>> = [];
  for (const { offset, bytes } of windowsOf(fd)) made.push(await packPart(fd, offset, bytes));
  const manifest: PartsManifest = {
    version: 1,
    id: "0123456789abcdef",
    bytes: 40 * MIB,
    start: 0,
    parts: made.map(({ part }) => part),
  };
  return { manifest, packed: made.map((one) => one.packed) };
};

describe("the parts of a sparse file", () => {
  it("are where anything stands, none too long, and make the same file again, holes and all", async () => {
    const fd = sparse();
    const { manifest, packed } = await partsOf(fd);
    assert.deepStrictEqual(
      manifest.parts.map(({ offset }) => offset / MIB),
      [0, 16, 24],
    );
    for (const part of manifest.parts) assert.isAtMost(part.bytes, PART_BYTES_MAX);
    const copy = join(directory, "copy");
    const assembly = assemble(copy, decodeManifest(encodeManifest(manifest)));
    for (const [number, bytes] of packed.entries()) await assembly.place(number, bytes);
    assembly.sync();
    assembly.close();
    assert.strictEqual(Buffer.compare(readFileSync(copy), readFileSync(join(directory, "sparse"))), 0);
    assert.isBelow(statSync(copy).blocks * 512, 11 * MIB);
    closeSync(fd);
  });

  it("are refused when one bit of them has changed, or when they unpack to more than they say", async () => {
    const fd = sparse();
    const { manifest, packed } = await partsOf(fd);
    const refused = async (name: string, wrong: PartsManifest, content: Uint8Array): Promise<unknown> => {
      const assembly = assemble(join(directory, name), wrong);
      const error = await assembly.place(0, content).catch((cause: unknown) => cause);
      assembly.close();
      return error;
    };
    const flipped = packed[0]!.slice();
    flipped[0]! ^= 1;
    assert.instanceOf(await refused("flipped", manifest, flipped), MalformedCheckpoint);
    const [first, ...others] = manifest.parts;
    const shorter = { ...manifest, parts: [{ ...first!, bytes: first!.bytes - 4096 }, ...others] };
    assert.instanceOf(await refused("bomb", shorter, packed[0]!), MalformedCheckpoint);
    closeSync(fd);
  });
});

describe("a manifest, whoever wrote it", () => {
  const good: PartsManifest = {
    version: 1,
    id: "0123456789abcdef",
    bytes: 100,
    start: 0,
    parts: [
      { offset: 0, bytes: 10, packed: 5, sha256: "0".repeat(64) },
      { offset: 50, bytes: 50, packed: 5, sha256: "1".repeat(64) },
    ],
  };
  it("names no byte outside the file and none twice, or is refused", () => {
    const whole = encodeManifest(good);
    assert.deepStrictEqual(decodeManifest(whole), good);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: whole.length - 1 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 }),
        (changes) => {
          const bytes = whole.slice();
          for (const [at, value] of changes) bytes[at] = value;
          try {
            const { parts, bytes: length } = decodeManifest(bytes);
            let free = 0;
            for (const part of parts) {
              assert.isAtLeast(part.offset, free);
              free = part.offset + part.bytes;
            }
            assert.isAtMost(free, length);
          } catch (error) {
            assert.instanceOf(error, MalformedCheckpoint, String(error));
          }
        },
      ),
      { numRuns: 3000 },
    );
  });

  it.each([
    ["a part over another", { ...good, parts: [good.parts[0]!, { ...good.parts[1]!, offset: 5 }] }, "lies over"],
    ["a part behind the end", { ...good, bytes: 60 }, "ends behind"],
    [
      "a part that is too long",
      { ...good, parts: [{ ...good.parts[0]!, bytes: PART_BYTES_MAX + 1 }] },
      "not a manifest",
    ],
  ])("with %s is refused", (_what, manifest, words) => {
    const bytes = new TextEncoder().encode(JSON.stringify(manifest));
    assert.throws(() => decodeManifest(bytes), MalformedCheckpoint, words);
  });
});
