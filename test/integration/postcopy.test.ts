/** Postcopy on real page faults: the guest runs at the destination before its memory is there, and checks every page of it. */
import { readdirSync, readlinkSync } from "node:fs";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  cancel,
  giveUp,
  pausePostcopy,
  recoverPostcopy,
  setParameters,
  startPostcopy,
} from "../../services/cli/src/client.ts";
import type { Journey } from "./journey.ts";
import { expectMoved, expectStayed } from "./outcome.ts";
import {
  COORDINATOR,
  eventually,
  killAndAwaitRestart,
  loaderOf,
  MIB,
  openWorld,
  runStateOf,
  senderOf,
  type World,
  workerOf,
  workersOf,
} from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const userfaultfdsOf = (pid: number): number =>
  readdirSync(`/proc/${pid}/fd`).filter((fd) => linkOf(`/proc/${pid}/fd/${fd}`).includes("userfaultfd")).length;
/** A descriptor may be closed between the two looks. */
const linkOf = (path: string): string => {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
};

const POSTCOPY = { "postcopy-ram": true, "postcopy-preempt": true };
/** It writes twice as fast as precopy may send. */
const BUSY = { memoryBytes: 64 * MIB, workingSetBytes: 48 * MIB, dirtyRateBytesPerSecond: 64 * MIB };
const TOO_SLOW = { "max-bandwidth": 32 * MIB, "downtime-limit": 20, "max-postcopy-bandwidth": 16 * MIB };

describe("a guest that writes faster than it can be sent", () => {
  it("is moved by postcopy when an operator asks for it, as fast as he says meanwhile, and finds every page as it left it", async () => {
    await world.startGuest({ name: "asked", ...BUSY });
    // At that rate its memory would take a minute.
    const parameters = { ...TOO_SLOW, "max-postcopy-bandwidth": MIB };
    const journey = await world.migrate("asked", "b", { parameters, capabilities: POSTCOPY });
    await journey.until(({ ram }) => (ram?.["dirty-sync-count"] ?? 0) >= 2);
    await world.run(startPostcopy({ migration: journey.id }));
    const active = await journey.until(({ status }) => status === "postcopy-active");
    expect(active.note).toMatch(/runs at node b, and \d+ MiB of its memory are at node a only/);
    await world.run(setParameters({ migration: journey.id, parameters: { "max-postcopy-bandwidth": 16 * MIB } }));
    const end = await expectMoved(world, journey, "b");
    expect(end.attempts).toBe(1);
    expect(end["total-time"]).toBeLessThan(30_000);
    expect(end["postcopy-requests"]).toBeGreaterThan(0);
    const { p50, p90, p99, max } = end["postcopy-latency"]!;
    expect(p50).toBeGreaterThan(0);
    expect([p50, p90, p99, max]).toEqual([p50, p90, p99, max].sort((a, b) => a - b));
    const blocked = end["postcopy-vcpu-blocktime"]!;
    expect(blocked.length).toBeGreaterThan(0);
    // All of them wait at most as long as each of them does.
    expect(end["postcopy-blocktime"]).toBeLessThanOrEqual(Math.min(...blocked) + 1);
    // A watch that went on would hold up the next ones, and the guest's memory as well.
    await eventually(
      "the loader holds no userfaultfd any more",
      () => userfaultfdsOf(world.pidOf(loaderOf("b"))) === 0,
    );
  });

  it("is moved by postcopy after as many rounds as postcopy-after-rounds says, without a channel of its own as well", async () => {
    await world.startGuest({ name: "rounds", ...BUSY });
    const journey = await world.migrate("rounds", "b", {
      parameters: { ...TOO_SLOW, "postcopy-after-rounds": 2, "postcopy-prefetch": "off" },
      capabilities: { "postcopy-ram": true },
    });
    const end = await expectMoved(world, journey, "b");
    // Two rounds, the third sync, which is one too many, and the last one.
    expect(end.ram?.["dirty-sync-count"]).toBe(4);
    expect(end["postcopy-requests"]).toBeGreaterThan(0);
  });

  it("is moved by postcopy when precopy would give up: at the pass limit, and at the deadline", async () => {
    for (const [name, limit] of [
      ["pass-limit", { "max-passes": 1 }],
      ["deadline", { "migration-deadline": 4000 }],
    ] as const) {
      await world.startGuest({ name, ...BUSY });
      const journey = await world.migrate(name, "b", { parameters: { ...TOO_SLOW, ...limit }, capabilities: POSTCOPY });
      expect((await expectMoved(world, journey, "b"))["postcopy-requests"]).toBeGreaterThan(0);
    }
  });
});

/** In postcopy, with most of a memory of 32 MiB at the source still: it would take four seconds. */
const midway = async (name: string, parameters: Readonly<Record<string, unknown>> = {}): Promise<Journey> => {
  await world.startGuest({ name, memoryBytes: 32 * MIB, dirtyRateBytesPerSecond: MIB });
  const journey = await world.migrate(name, "b", {
    parameters: { "downtime-limit": 1, "max-bandwidth": 8 * MIB, "max-postcopy-bandwidth": 8 * MIB, ...parameters },
    capabilities: POSTCOPY,
  });
  await world.run(startPostcopy({ migration: journey.id }));
  await journey.until(
    ({ status, ram }) => status === "postcopy-active" && ram !== undefined && ram.remaining < 30 * MIB,
  );
  return journey;
};
describe("in the middle of postcopy", () => {
  it.each([
    ["each multifd worker of the source", workersOf("a")],
    ["the RAM sender", [senderOf("a")]],
    ["the destination loader", [loaderOf("b")]],
    ["the coordinator", [COORDINATOR]],
  ] as const)("%s is killed: it goes on by itself, and nothing is lost", async (what, actors) => {
    const journey = await midway(`kill-${what.replace(/\W+/g, "-")}`);
    await Promise.all(actors.map((actor) => killAndAwaitRestart(world, actor)));
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });

  it("the loader is killed twice, and the sender in between", async () => {
    const journey = await midway("again", { "max-postcopy-bandwidth": 4 * MIB });
    for (const actor of [loaderOf("b"), senderOf("a"), loaderOf("b")]) await killAndAwaitRestart(world, actor);
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });

  it("the worker that serves the guest's faults dies, and another one takes its place", async () => {
    const journey = await midway("urgent");
    await world.kill(workerOf("a", workersOf("a").length - 1));
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });

  it("it cannot be cancelled, only paused, and goes on when it is told to", async () => {
    const journey = await midway("paused");
    const refused = await world.run(Effect.flip(cancel({ migration: journey.id })));
    expect(refused).toMatchObject({ code: "wrong-state", reason: "Postcopy migration in progress, cannot cancel." });
    await world.run(pausePostcopy({ migration: journey.id }));
    const paused = await journey.until(({ status }) => status === "postcopy-paused");
    expect(paused.note).toContain("paused by request");
    const kept = await world.run(Effect.flip(giveUp({ migration: journey.id })));
    expect(kept).toMatchObject({ code: "wrong-state", reason: expect.stringContaining("godwit recover") });
    // Nothing is asked for any more; what was on its way has come by the next report.
    const left = (await journey.until((info) => info !== paused && info.status === "postcopy-paused")).ram?.remaining;
    await killAndAwaitRestart(world, loaderOf("b"));
    expect(left).toBeGreaterThan(0);
    await world.run(recoverPostcopy({ migration: journey.id }));
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });

  it("the source's guest process is killed: the guest is lost with it, and says so", async () => {
    const journey = await midway("lost");
    process.kill(world.processesOf("lost").find(({ node }) => node === "a")!.spec.pid, "SIGKILL");
    // Workers that have its memory open would go on to serve it.
    await Promise.all(workersOf("a").map(world.kill));
    const end = await journey.end;
    expect(end).toMatchObject({ status: "failed", error: { code: "postcopy-source-lost" } });
    // It does not run on with zeros where pages were.
    const [left] = world.processesOf("lost");
    expect(left === undefined ? "gone" : await runStateOf(world, left.spec)).toMatch(/failed|gone/);
    expect(await world.record("lost")).toMatchObject({ state: "destination", open: false });
  });
});

describe("a postcopy whose source is lost for good, as an operator says", () => {
  it("is given up: the guest is ended at the destination, and its source, which comes back all the same, lets its copy go", async () => {
    const journey = await midway("given-up", { "max-postcopy-bandwidth": 2 * MIB });
    const early = await world.run(Effect.flip(giveUp({ migration: journey.id })));
    expect(early).toMatchObject({ code: "wrong-state", reason: expect.stringContaining("pages of the guest come") });
    const lost = [senderOf("a"), ...workersOf("a")].map(world.pidOf);
    for (const pid of lost) process.kill(pid, "SIGSTOP");
    await journey.until(({ status }) => status === "postcopy-recover" || status === "postcopy-paused");
    await world.run(giveUp({ migration: journey.id }));
    const end = await journey.end;
    expect(end, world.log().slice(-4000)).toMatchObject({ status: "failed", error: { code: "postcopy-given-up" } });
    const left = world.processesOf("given-up").find(({ node }) => node === "b");
    expect(left === undefined ? "gone" : await runStateOf(world, left.spec)).toMatch(/failed|gone/);
    const record = { state: "destination", node: "b", open: false, lost: expect.stringContaining("by an operator") };
    expect(await world.record("given-up")).toMatchObject(record);
    for (const pid of lost) process.kill(pid, "SIGCONT");
    await eventually("the source's copy is gone", () =>
      world.processesOf("given-up").every(({ node }) => node !== "a"),
    );
  });
});

describe("a migration that may go to postcopy", () => {
  it("converges by precopy where it can", async () => {
    await world.startGuest({ name: "quiet", memoryBytes: 16 * MIB, dirtyRateBytesPerSecond: MIB });
    const journey = await world.migrate("quiet", "b", { capabilities: POSTCOPY });
    expect((await expectMoved(world, journey, "b"))["postcopy-requests"]).toBeUndefined();
  });

  it("cannot be told to without the capability, in QEMU's words", async () => {
    await world.startGuest({ name: "without", memoryBytes: 16 * MIB, dirtyRateBytesPerSecond: MIB });
    const journey = await world.migrate("without", "b", { parameters: { "downtime-limit": 1, "max-bandwidth": MIB } });
    const refused = await world.run(Effect.flip(startPostcopy({ migration: journey.id })));
    expect(refused.reason).toContain("Enable postcopy with capability 'postcopy-ram'");
    await world.run(cancel({ migration: journey.id }));
    await expectStayed(world, "without", "a");
  });
});
