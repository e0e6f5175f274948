import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as Bitmap from "@godwit/memory/bitmap";
import { PAGE_BYTES } from "@godwit/protocol";
import fc from "fast-check";
import { afterAll, assert, describe, it } from "vitest";
import { isDeserted, removeDeserted } from "./aside.ts";
import { writeChecksums } from "./checksums.ts";
import { builtinState } from "./device-sections.ts";
import { layOut } from "./layout.ts";
import { MalformedCheckpoint } from "./malformed.ts";
import { type Checkpoint, readCheckpoint } from "./reader.ts";
import { readStoredPages } from "./stored-pages.ts";
import { contentOf, writeExample } from "./testing.ts";
import { openWriter } from "./writer.ts";

/** Mutations in `npm test`; FUZZ_RUNS=100000 for longer. */
const FUZZ_RUNS = Number(process.env["FUZZ_RUNS"] ?? 3000);

const directory = mkdtempSync(join(tmpdir(), "godwit-checkpoint-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const path = join(directory, "guest");

const withFile = <A>(use: (fd: number) => A, file = path): A => {
  const fd = openSync(file, "r");
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
};
const read = (start = 0, file = path): Checkpoint => withFile((fd) => readCheckpoint(fd, start), file);

const aBlock = fc.integer({ min: 1, max: 200 }).chain((pages) =>
  fc.record({
    pages: fc.constant(pages),
    stored: fc.uniqueArray(fc.integer({ min: 0, max: pages - 1 }), { maxLength: 20 }),
  }),
);

describe("a checkpoint", () => {
  it("gives back the machine, the blocks, which pages are stored, what they hold and the device state", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(aBlock, { minLength: 1, maxLength: 4 }),
        fc.uint8Array({ maxLength: 300 }),
        fc.constantFrom(0, 4660),
        async (blocks, state, start) => {
          await writeExample({
            path,
            start,
            state,
            blocks: blocks.map((block, index) => ({ ...block, name: `ram${index}` })),
          });
          const found = read(start);
          assert.strictEqual(found.machine, "pc-i440fx-10.0");
          assert.deepStrictEqual(builtinState(found.tail, found.devicesOffset), state);
          for (const [index, block] of found.blocks.entries()) {
            const { pages, stored } = blocks[index]!;
            assert.strictEqual(block.pages, pages);
            assert.strictEqual(block.pagesOffset % 1024 ** 2, 0);
            for (let page = 0; page < pages; page++)
              assert.strictEqual(Bitmap.test(block.present, page), stored.includes(page));
            for (const page of stored) {
              const bytes = new Uint8Array(PAGE_BYTES);
              const fd = openSync(path, "r");
              await readStoredPages(fd, block, page, bytes).finally(() => closeSync(fd));
              assert.deepStrictEqual(bytes, contentOf(index, page));
            }
          }
        },
      ),
      { numRuns: 30 },
    );
  });

  it("has its parts where QEMU 10 has them", () => {
    const { head, blocks, end } = layOut(
      "pc-i440fx-10.0",
      1,
      [
        { name: "pc.ram", lengthBytes: 64 * 1024 ** 2 },
        { name: "/rom@etc/acpi/tables", lengthBytes: 0x20000 },
        { name: "pc.bios", lengthBytes: 0x40000 },
      ],
      0,
    );
    assert.strictEqual(head.length, 0x63);
    assert.deepStrictEqual(
      blocks.map(({ headerOffset, bitmapOffset, pagesOffset }) => [headerOffset, bitmapOffset, pagesOffset]),
      [
        [0x63, 0x8e, 0x100000],
        [0x4100000, 0x4100039, 0x4200000],
        [0x4220000, 0x4220000 + 8 + 8 + 28, 0x4300000],
      ],
    );
    assert.strictEqual(end, 0x4340000);
  });

  it("takes no room for pages that are zero", async () => {
    await writeExample({ path, blocks: [{ name: "ram0", pages: 25_600, stored: [7] }] });
    assert.isBelow(statSync(path).blocks * 512, 1024 ** 2);
  });
});

describe("a checkpoint that was not written to its end", () => {
  it("is none while its writer works, and leaves the one before it alone", async () => {
    await writeExample({ path, blocks: [{ name: "ram0", pages: 8, stored: [1] }] });
    const before = readFileSync(path);
    const writer = openWriter({
      path,
      id: "2",
      machine: "builtin-1",
      start: 0,
      blocks: [{ name: "ram0", lengthBytes: 8 * PAGE_BYTES }],
      ramSection: 1,
    });
    assert.throws(() => read(0, writer.partialPath), MalformedCheckpoint, "not a migration stream");
    assert.deepStrictEqual(readFileSync(path), before);
    writer.close();
    assert.deepStrictEqual(
      readdirSync(directory).filter((name) => name.includes("partial")),
      [],
    );
  });

  it("is no leftover while its writer lives, nor what cannot be opened", () => {
    const options = { path, id: "3", machine: "builtin-1", start: 0, blocks: [], ramSection: 1 };
    const writer = openWriter(options);
    assert.isFalse(isDeserted(writer.partialPath));
    writer.close();
    assert.isFalse(isDeserted(writer.partialPath));
    writeFileSync(writer.partialPath, "");
    assert.isTrue(isDeserted(writer.partialPath));
    rmSync(writer.partialPath);
  });

  it("is removed wherever in the folder it lies, its checksums too, and nothing that somebody writes", () => {
    const deep = join(directory, "deep", "deeper");
    mkdirSync(deep, { recursive: true });
    const elsewhere = mkdtempSync(join(tmpdir(), "godwit-elsewhere-"));
    writeFileSync(join(elsewhere, ".vm1.4.partial"), "");
    symlinkSync(elsewhere, join(directory, "link"));
    for (const left of [".vm1.4.partial", ".vm1.sums.4.partial"]) writeFileSync(join(deep, left), "");
    writeFileSync(join(deep, "vm1.sums"), "");
    const sums = writeChecksums(join(deep, "vm2"), "5", { fingerprint: 1, blocks: [] });
    removeDeserted(directory);
    assert.deepStrictEqual(readdirSync(deep).sort(), [".vm2.sums.5.partial", "vm1.sums"]);
    assert.deepStrictEqual(readdirSync(elsewhere), [".vm1.4.partial"]);
    sums.put();
    assert.deepStrictEqual(readdirSync(deep).sort(), ["vm1.sums", "vm2.sums"]);
    rmSync(join(directory, "link"));
    for (const folder of [elsewhere, join(directory, "deep")]) rmSync(folder, { recursive: true });
  });

  it("is refused wherever it was cut, with the place", async () => {
    const bytes = await writeExample({
      path,
      blocks: [{ name: "ram0", pages: 40, stored: [1, 39] }],
      state: Buffer.alloc(100, 1),
    });
    const whole = readFileSync(path);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: bytes - 1 }), (length) => {
        writeFileSync(path, whole);
        truncateSync(path, length);
        const error = caught(() => read());
        assert.instanceOf(error, MalformedCheckpoint);
        assert.isAtMost((error as MalformedCheckpoint).offset, bytes);
      }),
      { numRuns: 200, examples: [[0], [4], [99], [bytes - 1]] },
    );
  });
});

const caught = (work: () => unknown): unknown => {
  try {
    work();
    return null;
  } catch (error) {
    return error;
  }
};

describe("what would be read for long", () => {
  it("is refused: records without a page in such numbers as no save writes", async () => {
    await writeExample({ path, blocks: [{ name: "ram0", pages: 1, stored: [] }] });
    const [block] = read().blocks;
    const whole = readFileSync(path);
    const end = block!.pagesOffset + block!.lengthBytes;
    const flush = Buffer.alloc(8);
    flush.writeBigUInt64BE(0x200n);
    const withFlushes = (count: number): void =>
      writeFileSync(path, Buffer.concat([whole.subarray(0, end), Buffer.alloc(8 * count, flush), whole.subarray(end)]));
    withFlushes(1000);
    assert.lengthOf(read().devices, 1);
    withFlushes(2 ** 19);
    assert.throws(() => read(), MalformedCheckpoint, "records without a page");
  });

  it("is refused: more RAM than a guest can have, before a bitmap is read", async () => {
    await writeExample({ path, blocks: [{ name: "ram0", pages: 1, stored: [] }] });
    const at = read().blocks[0]!.headerOffset - 8;
    const fd = openSync(path, "r+");
    const total = Buffer.alloc(8);
    total.writeBigUInt64BE(BigInt(8 * 1024 ** 4 + PAGE_BYTES) + 4n);
    writeSync(fd, total, 0, 8, at);
    closeSync(fd);
    assert.throws(() => read(), MalformedCheckpoint, "bytes of RAM");
  });
});

describe("whatever stands in a file", () => {
  it("names no page outside the file and none twice, or is refused", async () => {
    const small = join(directory, "fuzz");
    const blocks = [
      { name: "ram0", pages: 70, stored: [0, 3, 69] },
      { name: "rom", pages: 2, stored: [1] },
    ];
    await writeExample({ path: small, blocks });
    const whole = readFileSync(small);
    // The bytes that mean something: heads, bitmaps, tail; pages may hold anything.
    const spots = read(0, small).blocks.flatMap(({ headerOffset, bitmapOffset }) =>
      Array.from({ length: bitmapOffset + 16 - headerOffset }, (_, at) => headerOffset + at),
    );
    const tail = Array.from(
      { length: whole.length - read(0, small).devicesOffset + 60 },
      (_, at) => whole.length - 1 - at,
    );
    const head = Array.from({ length: 0x63 }, (_, at) => at);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom(...head, ...spots, ...tail), fc.integer({ min: 0, max: 255 })), {
          minLength: 1,
          maxLength: 4,
        }),
        (changes) => {
          const fd = openSync(small, "r+");
          for (const [at, value] of changes) writeSync(fd, Buffer.from([value]), 0, 1, at);
          const error = caught(() => {
            const found = read(0, small);
            let free = 0;
            for (const block of found.blocks) {
              assert.isAtLeast(block.headerOffset, free);
              assert.isAtLeast(block.pagesOffset, block.bitmapOffset);
              free = block.pagesOffset + block.lengthBytes;
              assert.isAtMost(free, whole.length);
              assert.isAtMost(Bitmap.count(block.present), block.pages);
            }
            builtinState(found.tail, found.devicesOffset);
          });
          for (const [at] of changes) writeSync(fd, whole, at, 1, at);
          closeSync(fd);
          if (error !== null) assert.instanceOf(error, MalformedCheckpoint, String(error));
        },
      ),
      { numRuns: FUZZ_RUNS },
    );
  });
});
