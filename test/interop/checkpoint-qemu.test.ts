/** Checkpoints between godwit and an unmodified QEMU, both ways: mapped-ram is QEMU's own format. */
import { closeSync, mkdirSync, openSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { randomId } from "@godwit/actor";
import { type Checkpoint, readCheckpoint } from "@godwit/checkpoint";
import { checkBootGuest, launchTestQemu, qemuIsInstalled, type TestQemu } from "@godwit/guest";
import * as Bitmap from "@godwit/memory/bitmap";
import {
  type CheckpointInfo,
  isCheckpointOver,
  PAGE_BYTES,
  type RestoreRequest,
  type SaveRequest,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import * as Schema from "effect/Schema";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
// The monitor itself is not part of what the library offers: nobody but its driver speaks QMP.
import { connectQmp } from "../../libs/guest/src/qemu/qmp.ts";
import { queryRestore, querySave, restore, save } from "../../services/cli/src/client.ts";
import { beginRestore, restored, saved } from "../integration/checkpoint-journey.ts";
import { eventually, loaderOf, openWorld, type World } from "../integration/world.ts";
import { MEMORY_BYTES } from "./qemu-pair.ts";
import { startQemuAt } from "./qemu-world.ts";

const suite = qemuIsInstalled() ? describe : describe.skip;
const because = qemuIsInstalled() ? "" : " (skipped: no qemu-system-x86_64 in PATH)";

let world: World;
let folder: string;
beforeAll(async () => {
  if (!qemuIsInstalled()) return;
  world = await openWorld();
  folder = world.cluster.settingsOf("a").checkpointDirectory;
  mkdirSync(folder, { recursive: true });
});
afterAll(() => world?.close());

const Status = Schema.Struct({ status: Schema.optionalKey(Schema.String) });

/** Commands at a QEMU's monitor, in order. */
const atMonitor = (
  qemu: TestQemu,
  ...commands: ReadonlyArray<readonly [string, Record<string, unknown>?]>
): Promise<void> =>
  world.run(
    Effect.scoped(
      Effect.flatMap(connectQmp(qemu.spec.qmp), (qmp) =>
        Effect.forEach(commands, ([name, args]) => qmp.execute(name, Schema.Unknown, args), { discard: true }),
      ),
    ),
  );
/** Waits until QEMU's own migration has completed. */
const migrated = (qemu: TestQemu): Promise<void> =>
  world.run(
    Effect.scoped(
      Effect.flatMap(connectQmp(qemu.spec.qmp), (qmp) =>
        qmp.execute("query-migrate", Status).pipe(
          Effect.repeat({
            until: ({ status }) => status === "completed" || status === "failed",
            schedule: Schedule.spaced("10 millis"),
          }),
          Effect.map(({ status }) => expect(status).toBe("completed")),
        ),
      ),
    ),
  );
const capabilities = (on: ReadonlyArray<string>) =>
  ["migrate-set-capabilities", { capabilities: on.map((capability) => ({ capability, state: true })) }] as const;

/** The guest goes on and writes letters; then its whole memory is looked at. */
const expectAlive = async (qemu: TestQemu, name: string): Promise<void> => {
  const before = qemu.serial().length;
  await world.run(qemu.awaitSerial((text) => text.length >= before + 3));
  const dump = join(world.directory, `${name}.ram`);
  await atMonitor(qemu, ["stop"], ["pmemsave", { val: 0, size: MEMORY_BYTES, filename: dump }]);
  const ledger = checkBootGuest(readFileSync(dump), qemu.program);
  expect(ledger.faults).toEqual([]);
  expect(ledger.round).toBeGreaterThan(1);
};

const checkpointAt = (path: string): Checkpoint => {
  const fd = openSync(path, "r");
  try {
    return readCheckpoint(fd);
  } finally {
    closeSync(fd);
  }
};
/** A byte of the last page that is stored of the first block. */
const placeOfPage = (path: string): number => {
  const [block] = checkpointAt(path).blocks;
  let page = block!.pages - 1;
  while (!Bitmap.test(block!.present, page)) page--;
  return block!.pagesOffset + page * PAGE_BYTES + 17;
};
/** What a RAM file holds where the checkpoint has nothing; there must be some of that. */
const pagesWithoutPlace = (path: string, name: string, ram: Buffer): { readonly zero: boolean } | null => {
  const block = checkpointAt(path).blocks.find((each) => each.name === name)!;
  const absent = [...Array(block.pages).keys()].filter((page) => !Bitmap.test(block.present, page));
  if (absent.length === 0) return null;
  return {
    zero: absent.every((page) => ram.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES).every((b) => b === 0)),
  };
};
const flip = (path: string, place: number): void => {
  const fd = openSync(path, "r+");
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, place);
  byte[0]! ^= 0x40;
  writeSync(fd, byte, 0, 1, place);
  closeSync(fd);
};

const program = { burstPages: 800 };
/** So slow that the guest, which reads all of its memory at once, is what brings its pages, bytes/s. */
const SLOWLY = { "max-postcopy-bandwidth": 1024 ** 2 };
const until = async (what: string, ask: () => Promise<CheckpointInfo>): Promise<CheckpointInfo> => {
  let info = await ask();
  await eventually(what, async () => {
    info = await ask();
    return isCheckpointOver(info);
  });
  return info;
};

suite(`a checkpoint of a QEMU guest${because}`, () => {
  it.each([
    ["off", ["mapped-ram"]],
    ["on", ["mapped-ram", "multifd"]],
  ] as const)("that godwit saved while it ran loads in a plain QEMU with multifd %s", async (multifd, on) => {
    const name = `out-${multifd}`;
    const source = await startQemuAt(world, name, "source", { program });
    await world.run(source.awaitSerial((text) => text.includes("B")));
    const id = randomId() as SaveRequest["id"];
    const request = {
      id,
      guest: name,
      uri: `file:${name}`,
      parameters: {},
      capabilities: {},
      stop: false,
      checksums: false,
    };
    await world.run(save("a", request));
    const info = await until(`save ${id} ends`, () => world.run(querySave("a", { id })));
    expect(info, world.log().slice(-3000)).toMatchObject({ status: "completed" });
    await expectAlive(source, `${name}-source`);
    const plain = await world.run(
      launchTestQemu({
        name: `${name}-plain`,
        directory: world.directory,
        memoryBytes: MEMORY_BYTES,
        role: "destination",
        program,
        memoryOptions: [
          ...["-machine", "pc,memory-backend=ram0"],
          ...["-object", `memory-backend-ram,id=ram0,size=${MEMORY_BYTES}`],
        ],
      }),
    );
    await atMonitor(plain, capabilities(on), ["migrate-incoming", { uri: `file:${join(folder, name)}` }]);
    await migrated(plain);
    await atMonitor(plain, ["cont"]);
    await expectAlive(plain, `${name}-plain`);
  });

  it.each([
    ["off", ["mapped-ram"], 0],
    ["on", ["mapped-ram", "multifd"], 0x1234],
  ] as const)("that QEMU saved with multifd %s starts with `godwit restore`", async (multifd, on, start) => {
    const name = `in-${multifd}`;
    const source = await startQemuAt(world, name, "source", { program });
    await world.run(source.awaitSerial((text) => text.includes("B")));
    const path = join(folder, name);
    const uri = start === 0 ? `file:${path}` : `file:${path},offset=${start}`;
    await atMonitor(source, ["stop"], capabilities(on), ["migrate", { uri }]);
    await migrated(source);
    await atMonitor(source, ["quit"]).catch(() => {});
    const destination = await startQemuAt(world, name, "destination", { program });
    const id = randomId() as RestoreRequest["id"];
    const request = {
      id,
      guest: name,
      uri,
      parameters: {},
      capabilities: {},
      stop: false,
      takeOver: false,
      lazy: false,
    };
    await world.run(restore("b", request));
    const info = await until(`restore ${id} ends`, () => world.run(queryRestore("b", { id })));
    expect(info, world.log().slice(-3000)).toMatchObject({ status: "completed" });
    await expectAlive(destination, name);
    expect(await world.record(name)).toMatchObject({ state: "destination", node: "b", open: false });
  });

  it("whose RAM lies in two backends starts with `godwit restore`, each page looked at, in a QEMU whose own is full of something else", async () => {
    const name = "numa";
    const half = MEMORY_BYTES / 2;
    const ramOf = (role: string, part: string): string => `/dev/shm/godwit-${name}-${role}-${part}`;
    const memoryOptions = (role: string) => [
      ...["-machine", "pc", "-smp", "2"],
      ...["low", "high"].flatMap((part, node) => [
        "-object",
        `memory-backend-file,id=${part},size=${half},mem-path=${ramOf(role, part)},share=on,prealloc=${role === "destination" ? "on" : "off"}`,
        "-numa",
        `node,nodeid=${node},memdev=${part}`,
      ]),
    ];
    try {
      const source = await startQemuAt(world, name, "source", { program, memoryOptions: memoryOptions("source") });
      await world.run(source.awaitSerial((text) => text.includes("B")));
      const saving = await saved(world, "a", name, `file:${name}`, { stop: true, checksums: true });
      expect(saving, world.log().slice(-3000)).toMatchObject({ status: "completed" });
      await atMonitor(source, ["quit"]).catch(() => {});
      const destination = await startQemuAt(world, name, "destination", {
        program,
        memoryOptions: memoryOptions("destination"),
      });
      for (const part of ["low", "high"])
        writeFileSync(ramOf("destination", part), Buffer.alloc(half, 0xff), { flag: "r+" });
      const path = join(folder, name);
      const pagePlace = placeOfPage(path);
      flip(path, pagePlace);
      const refused = await restored(world, "b", name, `file:${name}`);
      expect(refused).toMatchObject({ status: "failed", error: { code: "bad-checkpoint" } });
      // The QEMU that waits is none the worse for it.
      flip(path, pagePlace);
      const info = await restored(world, "b", name, `file:${name}`, { stop: true });
      expect(info, world.log().slice(-3000)).toMatchObject({ status: "completed", checksums: "verified" });
      expect(pagesWithoutPlace(path, "low", readFileSync(ramOf("destination", "low")))).toEqual({ zero: true });
      await atMonitor(destination, ["cont"]);
      await expectAlive(destination, name);
    } finally {
      for (const role of ["source", "destination"])
        for (const part of ["low", "high"]) rmSync(ramOf(role, part), { force: true });
    }
  });

  it.each([
    ["that QEMU saved", "nobody dies"],
    ["that godwit saved", "the loader is killed in the middle"],
  ] as const)("%s runs in a QEMU before its memory is there; while %s", async (whose, fate) => {
    const isOurs = whose === "that godwit saved";
    const name = isOurs ? "lazy-ours" : "lazy-theirs";
    const source = await startQemuAt(world, name, "source", { program });
    await world.run(source.awaitSerial((text) => text.includes("B")));
    if (isOurs) {
      const saving = await saved(world, "a", name, `file:${name}`, { stop: true, checksums: true });
      expect(saving, world.log().slice(-3000)).toMatchObject({ status: "completed" });
    } else {
      await atMonitor(source, ["stop"], capabilities(["mapped-ram"]), [
        "migrate",
        { uri: `file:${join(folder, name)}` },
      ]);
      await migrated(source);
    }
    await atMonitor(source, ["quit"]).catch(() => {});
    const destination = await startQemuAt(world, name, "destination", { program });
    const id = await beginRestore(world, "b", name, `file:${name}`, { parameters: SLOWLY, lazy: true });
    const look = (): Promise<CheckpointInfo | null> =>
      world.run(Effect.catch(queryRestore("b", { id }), () => Effect.succeed(null)));
    let info: CheckpointInfo | null = null;
    await eventually("the guest runs, and pages are missing", async () => {
      info = await look();
      return info !== null && (isCheckpointOver(info) || (info.status === "postcopy-active" && info.remaining > 0));
    });
    expect(info, world.log().slice(-3000)).toMatchObject({ status: "postcopy-active" });
    const refused = await saved(world, "b", name, "file:never", { stop: true });
    expect(refused).toMatchObject({ status: "failed", error: { code: "migration-in-progress" } });
    if (fate !== "nobody dies") await world.kill(loaderOf("b"));
    await eventually(`restore ${id} ends`, async () => {
      info = await look();
      return info !== null && isCheckpointOver(info);
    });
    expect(info, world.log().slice(-3000)).toMatchObject({ status: "completed", remaining: 0 });
    expect(info!["postcopy-requests"]).toBeGreaterThan(0);
    await expectAlive(destination, name);
    expect(await world.record(name)).toMatchObject({ state: "destination", node: "b", open: false });
    expect(world.log().includes(`going on where a former loader stopped: guest ${name}`)).toBe(fate !== "nobody dies");
  });
});
