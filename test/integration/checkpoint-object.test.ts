/** Checkpoints in a JetStream object store: a guest goes to a host with which its own shares no disk. */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { downloadCheckpoint, uploadCheckpoint } from "@godwit/checkpoint";
import { type ObjectStore, openObjectStore, setUpObjectStore } from "@godwit/fabric";
import { awaitVerified } from "@godwit/guest";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openProxy, type TcpProxy } from "../chaos/proxy.ts";
import { endGuest, restored, saved } from "./checkpoint-journey.ts";
import { MIB, openWorld, type World } from "./world.ts";

const BUCKET = "backups";
let world: World;
let proxy: TcpProxy;
let folder: string;
beforeAll(async () => {
  proxy = await openProxy();
  world = await openWorld();
  proxy.leadTo(Number(new URL(world.cluster.url).port));
  folder = world.cluster.settingsOf("a").checkpointDirectory;
  mkdirSync(folder, { recursive: true });
  await Effect.runPromise(setUpObjectStore({ servers: world.cluster.url, name: "test" }, BUCKET));
});
afterAll(async () => {
  await world?.close();
  await proxy?.close();
});

/** On a way to the server that can be cut. */
const withStore = <A>(use: (store: ObjectStore) => Effect.Effect<A, unknown, Scope.Scope>): Promise<A> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.flatMap(openObjectStore({ servers: `nats://127.0.0.1:${proxy.port}`, name: "test" }, BUCKET), use),
    ) as Effect.Effect<A>,
  );

describe("a checkpoint in NATS", () => {
  it("starts its guest on another host, every page right, and leaves no file on either", async () => {
    const spec = await world.startGuest({ name: "sender", memoryBytes: 64 * MIB, dirtyRateBytesPerSecond: 8 * MIB });
    const info = await saved(world, "a", "sender", `nats-object:${BUCKET}/sender`);
    expect(info, world.log().slice(-3000)).toMatchObject({ status: "completed" });
    expect(info.uploaded).toBeGreaterThan(8 * MIB);
    expect(info.uploaded).toBeLessThan(64 * MIB);
    await endGuest(world, spec);
    expect(readdirSync(folder)).toEqual([]);
    const back = await restored(world, "b", "sender", `nats-object:${BUCKET}/sender`);
    expect(back, world.log().slice(-3000)).toMatchObject({ status: "completed" });
    const [only, ...others] = world.processesOf("sender");
    expect(others).toEqual([]);
    expect(await world.run(awaitVerified(only!.spec))).toMatchObject({ done: true, badCount: 0 });
    expect(readdirSync(folder)).toEqual([]);
  });

  it("that was never put, and a store that was never made, are told by name", async () => {
    expect((await restored(world, "b", "nobody", `nats-object:${BUCKET}/nobody`)).error).toMatchObject({
      code: "no-such-checkpoint",
    });
    expect((await restored(world, "b", "nobody", `nats-object:${BUCKET}/nobody`, { lazy: true })).error).toMatchObject({
      code: "not-supported",
    });
    expect((await restored(world, "b", "nobody", "nats-object:elsewhere/nobody")).error).toMatchObject({
      code: "bucket-missing",
      reason: expect.stringContaining("setup-nats --objects elsewhere"),
    });
  });
});

describe("a transfer", () => {
  const directory = mkdtempSync(join(tmpdir(), "godwit-transfer-"));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, "file");
  const content = randomBytes(50 * MIB);
  writeFileSync(path, content);
  const upload = (id: string, told: (bytes: number) => void) => (store: ObjectStore) =>
    uploadCheckpoint(store, { name: "thing", id, path, start: 0 }, told);

  it("goes on where it stopped when its connection breaks, at either end", async () => {
    let parts = 0;
    await withStore(
      upload("0123456789abcdef", () => {
        if (++parts !== 2) return;
        proxy.enter("cut");
        setTimeout(() => proxy.enter("open"), 1500);
      }),
    );
    expect(parts).toBe(7);
    let brought = 0;
    const copy = join(directory, "copy");
    await withStore((store) =>
      Effect.map(
        downloadCheckpoint(store, "thing", copy, () => {
          if (++brought !== 2) return;
          proxy.enter("cut");
          setTimeout(() => proxy.enter("open"), 1500);
        }),
        () => expect(Buffer.compare(content, readFileSync(copy))).toBe(0),
      ),
    );
    expect(brought).toBe(7);
    // Whoever wanted it has had it.
    expect(existsSync(copy)).toBe(false);
  });

  it("that is begun again under its id sends nothing twice, and a new one takes the old one's parts away", async () => {
    const puts: string[] = [];
    const counted = (store: ObjectStore): ObjectStore => ({
      ...store,
      put: (name, bytes) => {
        puts.push(name);
        return store.put(name, bytes);
      },
    });
    await withStore((store) => upload("0123456789abcdef", () => {})(counted(store)));
    expect(puts).toEqual(["thing"]);
    await withStore(upload("fedcba9876543210", () => {}));
    const names = await withStore((store) => store.list);
    expect(names.filter(({ name }) => name.startsWith(".parts/thing/")).map(({ name }) => name.split("/")[2])).toEqual(
      Array.from({ length: 7 }, () => "fedcba9876543210"),
    );
  });

  it("finds a part that was exchanged, and leaves no file", async () => {
    const copy = join(directory, "spoilt");
    const error = await withStore((store) =>
      Effect.gen(function* () {
        const other = yield* store.get(".parts/thing/fedcba9876543210/1");
        other![1000]! ^= 1;
        yield* store.put(".parts/thing/fedcba9876543210/1", other!);
        return yield* Effect.flip(downloadCheckpoint(store, "thing", copy, () => {}));
      }),
    );
    expect(error).toMatchObject({ name: "MalformedCheckpoint", message: expect.stringContaining("part 1 is damaged") });
    expect(existsSync(copy)).toBe(false);
  });
});
