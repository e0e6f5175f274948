/** A guest is saved into a checkpoint while it runs, and started again from it, here and elsewhere. */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { randomId } from "@godwit/actor";
import { readCheckpoint } from "@godwit/checkpoint";
import { awaitVerified, type BuiltinSpec, openGuest, readStats } from "@godwit/guest";
import { type CheckpointInfo, isCheckpointOver, type RestoreRequest, type SaveRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cancelRestore, cancelSave, queryRestore, querySave, restore, save } from "../../services/cli/src/client.ts";
import { beginSave, endGuest, endOfSave, restored, saved } from "./checkpoint-journey.ts";
import { eventually, loaderOf, MIB, openWorld, runStateOf, senderOf, type World, workerOf } from "./world.ts";

let world: World;
let folder: string;
beforeAll(async () => {
  world = await openWorld();
  folder = world.cluster.settingsOf("a").checkpointDirectory;
  mkdirSync(folder, { recursive: true });
});
afterAll(() => world?.close());

const theOnly = (guest: string, node: string): BuiltinSpec => {
  const processes = world.processesOf(guest);
  expect(processes.map((one) => one.node)).toEqual([node]);
  return processes[0]!.spec;
};

describe("a checkpoint of a guest that runs", () => {
  it("is written while it writes, and started again at another node every page is right", async () => {
    const spec = await world.startGuest({
      name: "traveller",
      memoryBytes: 64 * MIB,
      dirtyRateBytesPerSecond: 16 * MIB,
    });
    const info = await saved(world, "a", "traveller", "file:traveller", { checksums: true });
    expect(info, world.log().slice(-3000)).toMatchObject({ status: "completed", checksums: "written" });
    expect(await runStateOf(world, spec)).toBe("running");
    expect(info.total).toBe(64 * MIB);
    expect(statSync(join(folder, "traveller")).size).toBeLessThan(64 * MIB * 1.02 + 3 * MIB);
    await endGuest(world, spec);
    const back = await restored(world, "b", "traveller", "file:traveller");
    expect(back, world.log().slice(-3000)).toMatchObject({ status: "completed", checksums: "verified" });
    const again = theOnly("traveller", "b");
    const verification = await world.run(awaitVerified(again));
    expect(verification).toMatchObject({ done: true, badCount: 0, pagesChecked: verification.pagesTotal });
    const { pagesWritten } = await world.run(readStats(again));
    await eventually(
      "the guest writes memory",
      async () => (await world.run(readStats(again))).pagesWritten > pagesWritten,
    );
    expect(await world.record("traveller")).toMatchObject({ state: "destination", node: "b", open: false });
  });
});

/** A save that ends when it is ended: its guest writes the same few pages faster than they are written to the file. */
const UNENDING = { "max-bandwidth": 8 * MIB, "downtime-limit": 20, "stall-timeout": 0 };
const RESTLESS = { memoryBytes: 24 * MIB, workingSetBytes: 8 * MIB, dirtyRateBytesPerSecond: 24 * MIB };
/** A save that goes on for some seconds. */
const SLOW = { "max-bandwidth": 24 * MIB, "downtime-limit": 20 };
const statusOf = (id: SaveRequest["id"]): Promise<CheckpointInfo> => world.run(querySave("a", { id }));
const partials = (): ReadonlyArray<string> => readdirSync(folder).filter((name) => name.includes(".partial"));

describe("a checkpoint that was there before", () => {
  it.each([
    ["the first pages are written", (info: CheckpointInfo) => info.transferred > 0],
    ["rounds follow each other", (info: CheckpointInfo) => info["dirty-sync-count"] > 2],
  ] as const)("stays whole when the saver is killed while %s, and the guest goes on", async (when, holds) => {
    const name = `kept-${when.split(" ").at(-1)}`;
    const spec = await world.startGuest({ name, ...RESTLESS });
    const first = await saved(world, "a", name, `file:${name}`);
    expect(first.status).toBe("completed");
    const before = readFileSync(join(folder, name));
    const id = await beginSave(world, "a", name, `file:${name}`, { parameters: UNENDING });
    await eventually(when, async () => {
      const info = await statusOf(id);
      expect(isCheckpointOver(info)).toBe(false);
      return holds(info);
    });
    await world.kill(senderOf("a"));
    await eventually("the guest goes on", async () => (await runStateOf(world, spec)) === "running");
    const { pagesWritten } = await world.run(readStats(spec));
    await eventually("it writes memory", async () => (await world.run(readStats(spec))).pagesWritten > pagesWritten);
    await eventually("what the dead saver left is gone", () => partials().length === 0);
    expect(Buffer.compare(readFileSync(join(folder, name)), before)).toBe(0);
    const again = await saved(world, "a", name, `file:${name}`);
    expect(again, world.log().slice(-3000)).toMatchObject({ status: "completed" });
    await endGuest(world, spec);
    expect(await restored(world, "a", name, `file:${name}`)).toMatchObject({ status: "completed" });
    const verification = await world.run(awaitVerified(theOnly(name, "a")));
    expect(verification).toMatchObject({ done: true, badCount: 0 });
    await endGuest(world, theOnly(name, "a"));
  });

  it("stays whole when the saver is killed while the guest stands still for it, and the guest goes on", async () => {
    const spec = await world.startGuest({ name: "halted", memoryBytes: 32 * MIB });
    await saved(world, "a", "halted", "file:halted");
    const before = readFileSync(join(folder, "halted"));
    // Nobody writes its pages: it stands still for as long as they sleep.
    const workers = [0, 1].map((id) => world.pidOf(workerOf("a", id)));
    for (const pid of workers) process.kill(pid, "SIGSTOP");
    try {
      const id = randomId() as SaveRequest["id"];
      const request = { id, guest: "halted", uri: "file:halted", parameters: {}, capabilities: {}, checksums: false };
      await world.run(save("a", { ...request, stop: true }));
      await eventually("the guest stands still", async () => (await runStateOf(world, spec)) === "paused");
      await world.kill(senderOf("a"));
      await eventually("the guest goes on", async () => (await runStateOf(world, spec)) === "running");
      expect(Buffer.compare(readFileSync(join(folder, "halted")), before)).toBe(0);
    } finally {
      for (const pid of workers) process.kill(pid, "SIGCONT");
    }
    expect(await saved(world, "a", "halted", "file:halted")).toMatchObject({ status: "completed" });
    await endGuest(world, spec);
  });

  it("stays when a save is cancelled, and the guest goes on", async () => {
    const spec = await world.startGuest({ name: "undecided", ...RESTLESS });
    await saved(world, "a", "undecided", "file:undecided");
    const before = readFileSync(join(folder, "undecided"));
    const id = await beginSave(world, "a", "undecided", "file:undecided", { parameters: UNENDING });
    await eventually("pages are written", async () => (await statusOf(id)).transferred > 0);
    await world.run(cancelSave("a", { id }));
    await eventually("the save has ended", async () => isCheckpointOver(await statusOf(id)));
    expect((await statusOf(id)).status).toBe("cancelled");
    expect(await runStateOf(world, spec)).toBe("running");
    expect(partials()).toEqual([]);
    expect(Buffer.compare(readFileSync(join(folder, "undecided")), before)).toBe(0);
    await endGuest(world, spec);
  });
});

describe("a save", () => {
  it("goes on when a worker is killed in it, and loses no page", async () => {
    const spec = await world.startGuest({ name: "robust", memoryBytes: 64 * MIB, dirtyRateBytesPerSecond: 4 * MIB });
    const id = await beginSave(world, "a", "robust", "file:robust", { parameters: { "max-bandwidth": 32 * MIB } });
    await eventually("pages are written", async () => (await statusOf(id)).transferred > 4 * MIB);
    await world.kill(workerOf("a", 0));
    await eventually("the save ends", async () => isCheckpointOver(await statusOf(id)));
    expect(await statusOf(id), world.log().slice(-3000)).toMatchObject({ status: "completed" });
    await endGuest(world, spec);
    expect(await restored(world, "b", "robust", "file:robust")).toMatchObject({ status: "completed" });
    expect(await world.run(awaitVerified(theOnly("robust", "b")))).toMatchObject({ done: true, badCount: 0 });
    await endGuest(world, theOnly("robust", "b"));
  });

  it("waits for a sender that still settles what an earlier life of it left", async () => {
    const spec = await world.startGuest({ name: "heir", memoryBytes: 16 * MIB });
    // What does not answer may have been left standing still: that is looked at several times.
    process.kill(spec.pid, "SIGSTOP");
    await world.kill(senderOf("a"));
    const unknown = randomId() as SaveRequest["id"];
    const hears = async () =>
      (await world.run(Effect.flip(querySave("a", { id: unknown })))).code === "no-such-checkpoint";
    await eventually("the sender hears", hears);
    const asked = saved(world, "a", "heir", "file:heir");
    // Heard after the save, answered before it.
    expect(await hears()).toBe(true);
    process.kill(spec.pid, "SIGCONT");
    expect(await asked).toMatchObject({ status: "completed" });
    await endGuest(world, spec);
  });

  it("takes no more room however long the guest writes, and none for zero pages", async () => {
    const memoryBytes = 48 * MIB;
    const spec = await world.startGuest({
      name: "busy",
      memoryBytes,
      dirtyRateBytesPerSecond: 24 * MIB,
      workingSetBytes: 24 * MIB,
      mix: { zero: 50, compressible: 25, random: 25 },
    });
    const info = await saved(world, "a", "busy", "file:busy", {
      parameters: { "max-bandwidth": 40 * MIB, "downtime-limit": 100 },
    });
    expect(info, world.log().slice(-3000)).toMatchObject({ status: "completed" });
    expect(info["dirty-sync-count"]).toBeGreaterThan(3);
    expect(info.transferred).toBeGreaterThan(memoryBytes / 2);
    const { size, blocks } = statSync(join(folder, "busy"));
    // The pages begin at a multiple of 1 MiB, behind the head.
    expect(size).toBeLessThanOrEqual(memoryBytes * 1.02 + 2 * MIB);
    expect(blocks * 512).toBeLessThanOrEqual(info.normal! * 4096 + 2 * MIB);
    await endGuest(world, spec);
  });

  it("of a guest that shall stop leaves it stopped, and has it as it stood", async () => {
    const spec = await world.startGuest({ name: "sleeper", memoryBytes: 16 * MIB });
    expect(await saved(world, "a", "sleeper", "file:sleeper", { stop: true })).toMatchObject({
      status: "completed",
      "dirty-sync-count": 1,
    });
    expect(await runStateOf(world, spec)).toBe("paused");
    await endGuest(world, spec);
    expect(await restored(world, "b", "sleeper", "file:sleeper", { stop: true })).toMatchObject({
      status: "completed",
    });
    const again = theOnly("sleeper", "b");
    expect(await runStateOf(world, again)).toBe("paused");
    await endGuest(world, again);
  });

  it("of a guest that somebody lets go on meanwhile fails, says so, and leaves no checkpoint of two moments", async () => {
    const spec = await world.startGuest({ name: "restless", memoryBytes: 16 * MIB });
    const workers = [0, 1].map((id) => world.pidOf(workerOf("a", id)));
    for (const pid of workers) process.kill(pid, "SIGSTOP");
    const id = randomId() as SaveRequest["id"];
    try {
      const request = { id, guest: "restless", uri: "file:restless", parameters: {}, capabilities: {} };
      await world.run(save("a", { ...request, checksums: false, stop: true }));
      await eventually("the guest stands still", async () => (await runStateOf(world, spec)) === "paused");
      await world.run(Effect.flatMap(openGuest(spec), ({ resume }) => resume));
    } finally {
      for (const pid of workers) process.kill(pid, "SIGCONT");
    }
    expect(await endOfSave(world, "a", id)).toMatchObject({
      status: "failed",
      error: { code: "checkpoint-failed", reason: expect.stringContaining("let guest restless go on") },
    });
    expect(readdirSync(folder).filter((name) => name.includes("restless"))).toEqual([]);
    expect(await runStateOf(world, spec)).toBe("running");
    await endGuest(world, spec);
  });

  it("past the page cache holds the same", async () => {
    const spec = await world.startGuest({ name: "direct", memoryBytes: 32 * MIB });
    const parameters = { "direct-io": "on", "multifd-channels": 4 };
    const info = await saved(world, "a", "direct", "file:direct,offset=0x5000", { parameters, checksums: true });
    expect(info, world.log().slice(-3000)).toMatchObject({ status: "completed" });
    await endGuest(world, spec);
    expect(await restored(world, "b", "direct", "file:direct,offset=0x5000", { parameters })).toMatchObject({
      status: "completed",
      checksums: "verified",
    });
    expect(await world.run(awaitVerified(theOnly("direct", "b")))).toMatchObject({ done: true, badCount: 0 });
    await endGuest(world, theOnly("direct", "b"));
  });

  it.each([
    [
      "a place outside the folder",
      { uri: "file:../elsewhere" },
      "invalid-parameter",
      "not within the checkpoint folder",
    ],
    ["a socket", { uri: "tcp:host:1" }, "invalid-parameter", "requires seekable transport"],
    [
      "compression",
      { parameters: { "multifd-compression": "zstd" } },
      "capability-conflict",
      "compression with mapped-ram",
    ],
    ["xbzrle", { capabilities: { xbzrle: true, multifd: false } }, "capability-conflict", "xbzrle"],
    ["postcopy", { capabilities: { "postcopy-ram": true } }, "capability-conflict", "postcopy-ram"],
    ["pages without places", { capabilities: { "mapped-ram": false } }, "not-supported", "mapped-ram"],
    ["a guest that is not there", { guest: "nobody" }, "no-such-guest", "nobody"],
  ])("with %s is refused", async (_what, more, code, words) => {
    const id = randomId() as SaveRequest["id"];
    const base = {
      id,
      guest: "traveller",
      uri: "file:x",
      parameters: {},
      capabilities: {},
      stop: false,
      checksums: false,
    };
    const answer = world.run(save("b", { ...base, ...more }));
    const error = await answer.then(
      async () => {
        await eventually("the save ends", async () => isCheckpointOver(await world.run(querySave("b", { id }))));
        return (await world.run(querySave("b", { id }))).error;
      },
      (refused: unknown) => refused,
    );
    expect(error).toMatchObject({ code, reason: expect.stringContaining(words) });
  });
});

describe("saves and migrations of one guest that are asked for at the same moment", () => {
  it("are one save, and the guest runs once", async () => {
    const spec = await world.startGuest({ name: "popular", memoryBytes: 32 * MIB });
    const asked = (id: SaveRequest["id"], uri: string) =>
      world.run(
        save("a", { id, guest: "popular", uri, parameters: SLOW, capabilities: {}, stop: false, checksums: false }),
      );
    const [one, other] = [randomId(), randomId()] as [SaveRequest["id"], SaveRequest["id"]];
    const answers = await Promise.allSettled([
      asked(one, "file:popular"),
      asked(one, "file:popular"),
      asked(other, "file:popular2"),
      world.migrate("popular", "b"),
    ]);
    const refused = answers.filter(({ status }) => status === "rejected");
    for (const { reason } of refused as ReadonlyArray<PromiseRejectedResult>)
      expect(["wrong-state", "migration-in-progress"]).toContain(reason.code);
    // Whoever was first has it: the other save was refused, and a migration that began ends with that word or its own.
    const journey = answers[3]?.status === "fulfilled" ? answers[3].value : null;
    const end = journey === null ? null : await journey.end;
    const saves = await Promise.all(
      [one, other].map((id) =>
        statusOf(id).then(
          () => endOfSave(world, "a", id),
          () => null,
        ),
      ),
    );
    const completed =
      saves.filter((info) => info?.status === "completed").length + (end?.status === "completed" ? 1 : 0);
    expect(completed, JSON.stringify([saves, end, refused])).toBeGreaterThanOrEqual(1);
    const processes = world.processesOf("popular");
    expect(processes.length).toBe(1);
    await eventually("the guest runs", async () => (await runStateOf(world, processes[0]!.spec)) === "running");
    if (end?.status !== "completed") expect(processes[0]!.spec.pid).toBe(spec.pid);
    await endGuest(world, processes[0]!.spec);
  });
});

describe("a restore", () => {
  it("that is cancelled leaves no guest, says so, and can be asked for again", async () => {
    const guest = await world.startGuest({
      name: "hesitant",
      memoryBytes: 256 * MIB,
      dirtyRateBytesPerSecond: 0,
      mix: { zero: 0, compressible: 0, random: 100 },
    });
    await saved(world, "a", "hesitant", "file:hesitant");
    await endGuest(world, guest);
    const id = randomId() as RestoreRequest["id"];
    const base = { guest: "hesitant", uri: "file:hesitant", parameters: {}, capabilities: {} };
    await world.run(restore("b", { id, ...base, stop: false, lazy: false, takeOver: false }));
    await world.run(cancelRestore("b", { id }));
    await eventually("it has ended", async () => isCheckpointOver(await world.run(queryRestore("b", { id }))));
    expect((await world.run(queryRestore("b", { id }))).status).toBe("cancelled");
    await eventually("no guest is left", () => world.processesOf("hesitant").length === 0);
    expect(await restored(world, "b", "hesitant", "file:hesitant")).toMatchObject({ status: "completed" });
    await endGuest(world, theOnly("hesitant", "b"));
  });

  const spoil = (name: string, change: (fd: number) => void): void => {
    const fd = openSync(join(folder, name), "r+");
    change(fd);
    closeSync(fd);
  };
  let spec: BuiltinSpec;
  beforeAll(async () => {
    spec = await world.startGuest({ name: "original", memoryBytes: 16 * MIB });
    await saved(world, "a", "original", "file:original", { checksums: true });
  });

  it("of a guest that runs somewhere is refused, whatever the operator says", async () => {
    for (const node of ["a", "b"]) {
      const info = await restored(world, node, "original", "file:original", { takeOver: true });
      expect(info.error).toMatchObject({ code: "guest-exists", reason: expect.stringContaining("original") });
    }
    expect(world.processesOf("original").map(({ node }) => node)).toEqual(["a"]);
    expect(await runStateOf(world, spec)).toBe("running");
  });

  it("of a file with a damaged page names the page, and leaves no guest behind", async () => {
    await endGuest(world, spec);
    let place = 0;
    spoil("original", (fd) => {
      const [block] = readCheckpoint(fd).blocks;
      const page = [...Array(block!.pages).keys()].find(
        (at) => (block!.present.words[at >>> 5]! & (1 << (at & 31))) !== 0,
      )!;
      place = block!.pagesOffset + page * 4096 + 17;
      const byte = Buffer.alloc(1);
      readSync(fd, byte, 0, 1, place);
      byte[0]! ^= 0x40;
      writeSync(fd, byte, 0, 1, place);
    });
    const info = await restored(world, "b", "original", "file:original");
    expect(info.error).toMatchObject({
      code: "bad-checkpoint",
      reason: expect.stringContaining("its checksum is not the one"),
    });
    expect(world.processesOf("original")).toEqual([]);
    expect(await world.record("original")).toMatchObject({ state: "source", node: "a" });
    spoil("original", (fd) => {
      const byte = Buffer.alloc(1);
      readSync(fd, byte, 0, 1, place);
      byte[0]! ^= 0x40;
      writeSync(fd, byte, 0, 1, place);
    });
    expect(await restored(world, "b", "original", "file:original")).toMatchObject({
      status: "completed",
      checksums: "verified",
    });
    await endGuest(world, theOnly("original", "b"));
  });

  it("of a file that was cut says at which byte", async () => {
    truncateSync(join(folder, "original"), 3 * MIB);
    const info = await restored(world, "b", "original", "file:original");
    expect(info.error).toMatchObject({ code: "bad-checkpoint", reason: expect.stringMatching(/^at byte \d+:/) });
    expect(world.processesOf("original")).toEqual([]);
  });

  it("whose loader is killed starts no guest, and another one does", async () => {
    const guest = await world.startGuest({
      name: "orphan",
      memoryBytes: 256 * MIB,
      dirtyRateBytesPerSecond: 0,
      mix: { zero: 0, compressible: 0, random: 100 },
    });
    await saved(world, "a", "orphan", "file:orphan");
    await endGuest(world, guest);
    const id = randomId() as RestoreRequest["id"];
    await world.run(
      restore("b", {
        id,
        guest: "orphan",
        uri: "file:orphan",
        parameters: {},
        capabilities: {},
        stop: false,
        lazy: false,
        takeOver: false,
      }),
    );
    await eventually("pages are read", async () => {
      const info = await world.run(queryRestore("b", { id }));
      return info.transferred > 0 || isCheckpointOver(info);
    });
    await world.kill(loaderOf("b"));
    await eventually("the loader is back", () => world.log().split("destination loader ready").length > 3);
    await eventually("it starts from the file", async () => {
      const info = await restored(world, "b", "orphan", "file:orphan");
      return (
        info.status === "completed" ||
        (info.error?.code === "guest-exists" && (await world.record("orphan"))?.state === "destination")
      );
    });
    const verification = await world.run(awaitVerified(theOnly("orphan", "b")));
    expect(verification).toMatchObject({ done: true, badCount: 0 });
  });
});
