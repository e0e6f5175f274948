/** A guest that runs while its memory is still in the file of its checkpoint. */
import { closeSync, existsSync, mkdirSync, openSync, readSync, renameSync, writeSync } from "node:fs";
import { join } from "node:path";
import { readCheckpoint } from "@godwit/checkpoint";
import { awaitVerified, type BuiltinSpec, openGuest, readStats, readVerification } from "@godwit/guest";
import { probeMissingFaults } from "@godwit/host";
import { Bitmap, PAGE_BYTES } from "@godwit/memory";
import { type CheckpointInfo, isCheckpointOver, type RestoreRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeExample } from "../../libs/checkpoint/src/testing.ts";
import { queryRestore } from "../../services/cli/src/client.ts";
import { beginRestore, endGuest, saved } from "./checkpoint-journey.ts";
import { eventually, loaderOf, MIB, openWorld, runStateOf, type World } from "./world.ts";

const ability = probeMissingFaults();
const skipped = ability._tag === "Missing";
const title = skipped ? `a lazy restore (skipped: ${ability.reason})` : "a lazy restore";

const MEMORY_BYTES = 128 * MIB;
/** So slow that the guest, which reads all of its memory at once, is what brings its pages, bytes/s. */
const SLOWLY = { "max-postcopy-bandwidth": MIB };

let world: World;
let folder: string;
beforeAll(async () => {
  if (skipped) return;
  world = await openWorld();
  folder = world.cluster.settingsOf("a").checkpointDirectory;
  mkdirSync(folder, { recursive: true });
});
afterAll(() => world?.close());

/** A guest that is gone, and a checkpoint of it. */
const checkpointOf = async (guest: string): Promise<string> => {
  const options = { name: guest, memoryBytes: MEMORY_BYTES, dirtyRateBytesPerSecond: 16 * MIB };
  const spec = await world.startGuest(options);
  expect(
    await saved(world, "a", guest, `file:${guest}`, { stop: true, checksums: true }),
    world.log().slice(-3000),
  ).toMatchObject({ status: "completed" });
  await endGuest(world, spec);
  return join(folder, guest);
};

/** Asks for a lazy restore at node b; the result tells how it stands. */
const restoring = async (guest: string, parameters: RestoreRequest["parameters"]) => {
  const id = await beginRestore(world, "b", guest, `file:${guest}`, { parameters, lazy: true });
  const look = (): Promise<CheckpointInfo | null> =>
    world.run(Effect.catch(queryRestore("b", { id }), () => Effect.succeed(null)));
  const until = async (what: string, holds: (info: CheckpointInfo) => boolean): Promise<CheckpointInfo> => {
    let info: CheckpointInfo | null = null;
    await eventually(`${what}; restore ${id}`, async () => {
      info = await look();
      return info !== null && (holds(info) || isCheckpointOver(info));
    });
    return info!;
  };
  return { until, end: () => until("it ends", isCheckpointOver) };
};
const runsAlready = (info: CheckpointInfo): boolean => info.status === "postcopy-active" && info.remaining > 0;

const theOnly = (guest: string, node: string): BuiltinSpec => {
  const processes = world.processesOf(guest);
  expect(processes.map((one) => one.node)).toEqual([node]);
  return processes[0]!.spec;
};
const pagesMissing = (spec: BuiltinSpec): Promise<boolean> =>
  world.run(
    Effect.flatMap(openGuest(spec), (guest) =>
      Effect.map(guest.describe, (found) => found.pagesMissing === true && found.runState === "running"),
    ),
  );
const expectAllRight = async (spec: BuiltinSpec): Promise<void> => {
  const verification = await world.run(awaitVerified(spec));
  expect(verification).toMatchObject({ done: true, badCount: 0, pagesChecked: MEMORY_BYTES / PAGE_BYTES });
};
const expectWrites = async (spec: BuiltinSpec): Promise<void> => {
  const { pagesWritten } = await world.run(readStats(spec));
  await eventually(
    "the guest writes memory",
    async () => (await world.run(readStats(spec))).pagesWritten > pagesWritten,
  );
};

describe.skipIf(skipped)(title, () => {
  it("runs the guest before its memory is there, brings every page right, and the guest moves on", async () => {
    await checkpointOf("early");
    const { until, end } = await restoring("early", SLOWLY);
    const running = await until("it runs", runsAlready);
    expect(running, world.log().slice(-3000)).toMatchObject({ status: "postcopy-active" });
    const spec = theOnly("early", "b");
    expect(await pagesMissing(spec)).toBe(true);
    expect((await world.run(readVerification(spec))).done).toBe(false);
    const info = await end();
    expect(info, world.log().slice(-3000)).toMatchObject({ status: "completed", remaining: 0 });
    expect(info["first-instruction"]).toBeLessThan(info["total-time"]);
    expect(info["postcopy-requests"]).toBeGreaterThan(0);
    const latency = info["postcopy-latency"]!;
    expect(latency.p50).toBeLessThanOrEqual(latency.p99);
    expect(latency.p99).toBeLessThanOrEqual(latency.max);
    await expectAllRight(spec);
    expect(await pagesMissing(spec)).toBe(false);
    expect(await world.record("early")).toMatchObject({ state: "destination", node: "b", open: false });
    const journey = await world.migrate("early", "a");
    expect((await journey.end).status, world.log().slice(-3000)).toBe("completed");
    await eventually("the copy it left is gone", () => world.processesOf("early").length === 1);
    const moved = theOnly("early", "a");
    await expectAllRight(moved);
    await expectWrites(moved);
  });

  it.each([
    ["killed", "SIGKILL"],
    ["told to end", "SIGTERM"],
  ] as const)(
    "goes on when its loader is %s in the middle: the guest waits, and gets every page right",
    async (_, signal) => {
      const guest = `patient-${signal}`;
      await checkpointOf(guest);
      const { until, end } = await restoring(guest, SLOWLY);
      await until("it runs", runsAlready);
      const pid = world.pidOf(loaderOf("b"));
      process.kill(pid, signal);
      await eventually("the loader is gone", () => !existsSync(`/proc/${pid}`));
      const spec = theOnly(guest, "b");
      expect(await pagesMissing(spec)).toBe(true);
      expect(await end(), world.log().slice(-3000)).toMatchObject({ status: "completed" });
      await expectAllRight(spec);
      await expectWrites(spec);
      expect(world.log()).toContain(`going on where a former loader stopped: guest ${guest}`);
    },
  );

  it("waits, and says so, while its checkpoint is gone or another one; nobody reads its memory meanwhile", async () => {
    const path = await checkpointOf("stranded");
    const { until, end } = await restoring("stranded", SLOWLY);
    await until("it runs", runsAlready);
    renameSync(path, `${path}.away`);
    await world.kill(loaderOf("b"));
    const info = await until("it says what is wrong", ({ error }) => error !== undefined);
    expect(info).toMatchObject({ status: "postcopy-active", error: { code: "checkpoint-failed" } });
    expect(world.log()).toMatch(/guest stranded waits for pages of .*stranded that cannot be had: .*ENOENT/);
    const spec = theOnly("stranded", "b");
    expect(await pagesMissing(spec)).toBe(true);
    const refused = await saved(world, "b", "stranded", "file:never", { stop: true });
    expect(refused).toMatchObject({ status: "failed", error: { code: "migration-in-progress" } });
    const journey = await world.migrate("stranded", "a");
    expect(await journey.end).toMatchObject({ status: "failed", error: { code: "migration-in-progress" } });
    await writeExample({ path, blocks: [{ name: "ram0", pages: 16, stored: [1] }] });
    await until("it sees the other file", ({ error }) => error?.reason.includes("replaced") === true);
    expect(await runStateOf(world, spec)).toBe("running");
    renameSync(`${path}.away`, path);
    expect(await end(), world.log().slice(-3000)).toMatchObject({ status: "completed" });
    await expectAllRight(spec);
  });

  it("stops the guest rather than give it a page that is not what was saved", async () => {
    const path = await checkpointOf("hurt");
    const fd = openSync(path, "r+");
    const [block] = readCheckpoint(fd).blocks;
    const run = Bitmap.nextRun(block!.present, MEMORY_BYTES / PAGE_BYTES / 2, 1)!;
    const byte = new Uint8Array(1);
    const at = block!.pagesOffset + run.first * PAGE_BYTES + 9;
    readSync(fd, byte, 0, 1, at);
    writeSync(fd, Uint8Array.of(byte[0]! ^ 1), 0, 1, at);
    closeSync(fd);
    const { end } = await restoring("hurt", {});
    const info = await end();
    expect(info, world.log().slice(-3000)).toMatchObject({ status: "failed", error: { code: "bad-checkpoint" } });
    expect(info.error?.reason).toContain(`page ${run.first} of RAMBlock ram0`);
    expect(await runStateOf(world, theOnly("hurt", "b"))).toBe("failed");
  });
});
