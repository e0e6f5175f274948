import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isRefused, makeOpener, type Sealing, sourceSealing, UNSEALED, writeSealing } from "@godwit/encryption";
import { addressExport, exportBlocks, PAGE_BYTES, withdrawExports } from "@godwit/memory";
import { decodePacket, type PagesItem, type SliceItem } from "@godwit/protocol";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
// Whoever lays device state out for workers.
import { openArena } from "../../vfio-agent/src/arena.ts";
import { makePacker, type Packer } from "./packing.ts";
import { makeSealingPacker, ROOM_BYTES } from "./sealing.ts";

const MIGRATION = "0123456789abcdef";
const EPOCH = 3;
const SEALED: Sealing = { cipher: "aes-256-gcm", key: new Uint8Array(32).fill(5) };
const shared = {
  migration: MIGRATION,
  epoch: EPOCH,
  round: 1,
  item: 0,
  channel: 0,
  channelEpoch: 1,
  compression: "none",
  level: 1,
  deadline: 0,
  lane: "nats",
} as const;
const PAGE: PagesItem = {
  kind: "pages",
  ...shared,
  block: 0,
  fileOffset: 0,
  zeroPages: "worker",
  xbzrle: null,
  runs: Uint32Array.of(0, 1),
};
const SLICE: SliceItem = { kind: "slice", ...shared, stream: 1, offset: 0, bytes: 100 };

let directory: string;
let runtime: string;
let packer: Packer;
const room = new Uint8Array(ROOM_BYTES);
beforeEach(() => {
  directory = mkdtempSync("/dev/shm/godwit-sealing-");
  runtime = join(directory, "run");
  packer = makePacker(runtime);
  const path = join(directory, "memory");
  writeFileSync(path, Buffer.alloc(PAGE_BYTES, "guest memory"));
  for (const folder of ["ram", "vfio"] as const) addressExport(runtime, folder, MIGRATION, "b");
  exportBlocks(runtime, MIGRATION, EPOCH, [
    { name: "ram", lengthBytes: PAGE_BYTES, hostPageBytes: PAGE_BYTES, path, fileOffset: 0 },
  ]);
});
afterEach(() => {
  packer.close();
  rmSync(directory, { recursive: true, force: true });
});
const sealAs = (sealing: Sealing): void => writeSealing(sourceSealing(runtime, MIGRATION, EPOCH), sealing);
const openerFor = (purpose: "ram" | "devices") => makeOpener(SEALED, { migration: MIGRATION, epoch: EPOCH, purpose });

describe("a worker", () => {
  it("sends packets as they are where the RAM sender says so", () => {
    sealAs(UNSEALED);
    assert.strictEqual(decodePacket(makeSealingPacker(packer, runtime).pack(PAGE, "b", room)).kind, "pages");
  });

  it("seals them where it says so, each for whom it is", () => {
    sealAs(SEALED);
    const arena = openArena(runtime, { migration: MIGRATION, destination: "b" }, EPOCH, 1000);
    arena.write(1, 0, Buffer.alloc(100, "device"), 0);
    const sealing = makeSealingPacker(packer, runtime);
    for (const [item, purpose, secret] of [
      [PAGE, "ram", "guest memory"],
      [SLICE, "devices", "device"],
    ] as const) {
      const sealed = sealing.pack(item, "b", room).slice();
      assert.isFalse(Buffer.from(sealed).includes(secret));
      assert.strictEqual(decodePacket(sealed).kind, "malformed");
      const packet = openerFor(purpose).open(sealed);
      assert.isFalse(isRefused(packet));
      assert.isTrue(Buffer.from(packet as Uint8Array).includes(secret));
      assert.isTrue(isRefused(openerFor(purpose === "ram" ? "devices" : "ram").open(sealed)));
    }
  });

  it("seals what is asked for again anew: it is no replay", () => {
    sealAs(SEALED);
    const [one, other] = [makeSealingPacker(packer, runtime), makeSealingPacker(packer, runtime)];
    const opener = openerFor("ram");
    for (const sealing of [one, one, other, one])
      assert.isFalse(isRefused(opener.open(sealing.pack(PAGE, "b", room).slice())));
  });

  it("sends nothing where nobody says how, whatever it is asked for", () => {
    const sealing = makeSealingPacker(packer, runtime);
    assert.throws(() => sealing.pack(PAGE, "b", room), /ENOENT/);
    // Not whole.
    sealAs(SEALED);
    writeFileSync(sourceSealing(runtime, MIGRATION, EPOCH), "{}");
    assert.throws(() => sealing.pack(PAGE, "b", room), /does not say how/);
  });

  it("goes on sealing what it began, when the word is gone and the memory is still open to it", () => {
    sealAs(SEALED);
    const sealing = makeSealingPacker(packer, runtime);
    sealing.pack(PAGE, "b", room);
    rmSync(join(runtime, "sealing"), { recursive: true });
    withdrawExports(runtime, MIGRATION);
    assert.isFalse(isRefused(openerFor("ram").open(sealing.pack(PAGE, "b", room).slice())));
    assert.throws(() => makeSealingPacker(packer, runtime).pack(PAGE, "b", room), /ENOENT/);
  });
});
