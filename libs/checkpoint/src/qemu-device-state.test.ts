import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as Bitmap from "@godwit/memory/bitmap";
import { DEVICE_STATE_BYTES_MAX, PAGE_BYTES } from "@godwit/protocol";
import { afterAll, assert, describe, it } from "vitest";
import { MalformedCheckpoint } from "./malformed.ts";
import { putTogether, qemuDeviceState } from "./qemu-device-state.ts";
import { takeApart } from "./qemu-state.ts";
import { type Checkpoint, readCheckpoint } from "./reader.ts";
import { ignoresShared } from "./stream-head.ts";
import { u8, u64 } from "./stream-words.ts";
import { contentOf, writeExample } from "./testing.ts";

const directory = mkdtempSync(join(tmpdir(), "godwit-device-state-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const path = join(directory, "guest");

const withCheckpoint = async <A>(use: (fd: number, found: Checkpoint) => Promise<A>): Promise<A> => {
  const fd = openSync(path, "r");
  try {
    return await use(fd, readCheckpoint(fd));
  } finally {
    closeSync(fd);
  }
};

describe("the device state of a checkpoint", () => {
  it("has the devices and all pages of RAM that is not the guest's own, and none of those that are", async () => {
    const blocks = [
      { name: "ram0", pages: 50, stored: [0, 7] },
      { name: "pc.bios", pages: 9, stored: [1, 2, 8] },
      { name: "empty", pages: 2, stored: [] },
    ];
    await writeExample({ path, blocks });
    await withCheckpoint(async (fd, found) => {
      const stream = await qemuDeviceState(fd, found, new Set(["ram0"]), "x-ignore-shared");
      const state = takeApart(stream, new Set(["ram0"]));
      assert.strictEqual(state.machine, "pc-i440fx-10.0");
      assert.deepStrictEqual(
        state.blocks.map(({ name, lengthBytes }) => [name, lengthBytes / PAGE_BYTES]),
        [
          ["ram0", 50],
          ["pc.bios", 9],
          ["empty", 2],
        ],
      );
      assert.deepStrictEqual(Buffer.from(state.tail), Buffer.from(found.tail));
      const [bios, empty] = state.own;
      assert.strictEqual(Bitmap.count(empty!.present), 0);
      assert.deepStrictEqual(bios!.present, found.blocks[1]!.present);
      assert.deepStrictEqual(
        Buffer.from(bios!.pages),
        Buffer.concat([contentOf(1, 1), contentOf(1, 2), contentOf(1, 8)]),
      );
      assert.deepStrictEqual(Buffer.from(putTogether(state, "x-ignore-shared")), Buffer.from(stream));
    });
  });

  it("says for itself whether it is to be read with x-ignore-shared", async () => {
    await writeExample({ path, blocks: [{ name: "ram0", pages: 50, stored: [0, 7] }] });
    await withCheckpoint(async (fd, found) => {
      for (const leftOut of ["x-ignore-shared", "not sent"] as const) {
        const file = join(directory, "stream");
        writeFileSync(file, await qemuDeviceState(fd, found, new Set(["ram0"]), leftOut));
        assert.strictEqual(ignoresShared(file), leftOut === "x-ignore-shared");
      }
    });
  });

  it("names no addresses in a plain stream, and sends zeros as well, which a QEMU would keep its firmware in place of", async () => {
    const blocks = [
      { name: "ram0", pages: 50, stored: [0, 7] },
      { name: "bios", pages: 3, stored: [1] },
    ];
    await writeExample({ path, blocks });
    await withCheckpoint(async (fd, found) => {
      const stream = Buffer.from(await qemuDeviceState(fd, found, new Set(["ram0"]), "not sent"));
      const name = Buffer.concat([u8(4), Buffer.from("bios")]);
      const records = Buffer.concat([
        ...[u8(4), Buffer.from("ram0"), u64(50 * PAGE_BYTES), name, u64(3 * PAGE_BYTES)],
        ...[u64(0x02), name, u8(0)],
        ...[u64(PAGE_BYTES + 0x08), name, contentOf(1, 1)],
        ...[u64(2 * PAGE_BYTES + 0x02), name, u8(0)],
        ...[u64(0x10), u8(0x7e)],
      ]);
      assert.isTrue(stream.includes(records));
      assert.isFalse(stream.includes("configuration/capabilities"));
    });
  });

  it("is refused when RAM travels in it, however little of that is stored", async () => {
    const pages = DEVICE_STATE_BYTES_MAX / PAGE_BYTES + 1;
    await writeExample({ path, blocks: [{ name: "ram0", pages, stored: [] }] });
    await withCheckpoint(async (fd, found) => {
      const error = await qemuDeviceState(fd, found, new Set(), "not sent").catch((cause: unknown) => cause);
      assert.instanceOf(error, MalformedCheckpoint);
      assert.include((error as Error).message, "share=on");
    });
  });
});
