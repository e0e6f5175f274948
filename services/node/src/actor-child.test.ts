import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Settings } from "@godwit/actor";
import { Fabric, NatsFabric } from "@godwit/fabric";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import * as Effect from "effect/Effect";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { startChild } from "./actor-child.ts";

let directory: string;
let nats: LocalNats;
beforeEach(async () => {
  directory = mkdtempSync("/tmp/godwit-child-");
  nats = await startNats({ storeDir: join(directory, "nats") });
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await nats.stop();
  rmSync(directory, { recursive: true, force: true });
});

/** Starts a worker, waits until it is there, and kills it. */
const killedOnceReady = (runtimeDirectory: string): Promise<void> =>
  Effect.gen(function* () {
    const fabric = yield* Fabric;
    const settings = { nats: nats.url, creds: undefined, node: "a", runtimeDirectory, guestDirectory: directory };
    const news = yield* fabric.watch({ role: "multifd-worker" });
    const child = startChild({ role: "multifd-worker", id: "0" }, settings as unknown as Settings, "inherit");
    yield* news.takeAll;
    process.kill(child.pid, "SIGKILL");
    yield* child.exited;
  }).pipe(
    Effect.scoped,
    Effect.provide(NatsFabric.layer({ servers: nats.url, name: "actor child test" })),
    Effect.runPromise,
  );

it("an actor keeps what it has compiled for the next one, in a folder of its node's own, also when it is killed", async () => {
  vi.stubEnv("NODE_COMPILE_CACHE", undefined);
  const runtime = join(directory, "a");
  await killedOnceReady(runtime);
  const compiled = join(runtime, "compiled");
  expect(statSync(compiled).mode & 0o777).toBe(0o700);
  expect(readdirSync(compiled, { recursive: true }).length).toBeGreaterThan(5);
});

it("an actor uses no folder that others could write to", async () => {
  vi.stubEnv("NODE_COMPILE_CACHE", undefined);
  const compiled = join(directory, "a", "compiled");
  mkdirSync(compiled, { recursive: true });
  chmodSync(compiled, 0o777);
  await killedOnceReady(join(directory, "a"));
  expect(readdirSync(compiled)).toEqual([]);
});

it("an actor shares the cache of whoever started its node, where that has one", async () => {
  const shared = join(directory, "shared");
  vi.stubEnv("NODE_COMPILE_CACHE", shared);
  await killedOnceReady(join(directory, "a"));
  expect(readdirSync(shared, { recursive: true }).length).toBeGreaterThan(5);
  expect(existsSync(join(directory, "a", "compiled"))).toBe(false);
});
