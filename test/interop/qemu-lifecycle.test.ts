/** What a guest in a real QEMU, or its operator, does to it while it is moved. */
import { readFileSync } from "node:fs";
import {
  type BootProgram,
  COUNTER_OFFSETS,
  openGuest,
  openRegistry,
  qemuIsInstalled,
  type TestQemu,
} from "@godwit/guest";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HELD, letGo } from "../integration/held.ts";
import { isMidway } from "../integration/journey.ts";
import { eventually, MIB, openWorld, type World } from "../integration/world.ts";
import { atMonitor, pidOfQemu, startQemuAt, startQemuPair } from "./qemu-world.ts";

const installed = qemuIsInstalled();
const because = installed ? "" : " (skipped: no qemu-system-x86_64 in PATH)";
const suite = installed ? describe : describe.skip;

/** An ending that takes longer came from a deadline. */
const AT_ONCE_MS = 10_000;

let world: World;
beforeAll(async () => {
  if (installed) world = await openWorld();
});
afterAll(() => world?.close());

const runStateOf = (qemu: TestQemu): Promise<string> =>
  world.run(
    Effect.scoped(Effect.flatMap(openGuest(qemu.spec), (guest) => guest.describe)).pipe(
      Effect.map(({ runState }) => runState as string),
      Effect.catch((error) => Effect.succeed(error.code as string)),
    ),
  );

const expectClosed = async (guest: string, expected: object): Promise<void> => {
  await eventually(`the record of guest ${guest} is closed`, async () => (await world.record(guest))?.open === false);
  expect(await world.record(guest)).toMatchObject(expected);
};

/** The destination waits for the next try, as if nothing had ever come. */
const expectDestinationWaits = async (guest: string, destination: TestQemu): Promise<void> => {
  const registry = openRegistry(world.cluster.settingsOf("b").runtimeDirectory);
  await eventually(`the destination of guest ${guest} is let go`, () => registry.find(guest)?.moving === undefined);
  expect(await runStateOf(destination)).toBe("incoming");
};

/**
 * By how much each counter of the destination's guest is ahead of the source's, which was stopped. A guest that goes on where it
 * stopped has written one stretch of them once more than the rest, however its counters stood: so many edges has that.
 */
const EDGES_MAX = 2;
const edgesBetween = (before: Uint8Array, after: Uint8Array, program: BootProgram): number => {
  const [from, to] = [before, after].map((ram) => new DataView(ram.buffer, ram.byteOffset, ram.byteLength));
  let edges = 0;
  let last: number | null = null;
  for (let page = program.startAddress; page < program.endAddress; page += 4096) {
    for (const offset of COUNTER_OFFSETS) {
      const ahead = to!.getUint32(page + offset, true) - from!.getUint32(page + offset, true);
      expect(ahead).toBeGreaterThanOrEqual(0);
      if (last !== null && ahead !== last) edges++;
      last = ahead;
    }
  }
  return edges;
};

suite(`a QEMU guest that is reset in precopy${because}`, () => {
  it("arrives with all that it has written since", async () => {
    const { source, destination } = await startQemuPair(world, "reset");
    const journey = await world.migrate("reset", "b", { parameters: HELD });
    await journey.until(isMidway);
    await atMonitor(world, source, "system_reset");
    await world.run(source.awaitSerial((text) => text.split("A").length > 2));
    await letGo(world, journey);
    const end = await journey.end;
    expect(end, world.log().slice(-4000)).toMatchObject({ status: "completed", destination: "b" });
    const before = destination.serial().length;
    await world.run(destination.awaitSerial((text) => text.length > before));
    await world.run(Effect.scoped(Effect.flatMap(openGuest(destination.spec), (guest) => guest.pause)));
    const edges = edgesBetween(readFileSync(source.ramPath), readFileSync(destination.ramPath), source.program);
    expect(edges).toBeLessThanOrEqual(EDGES_MAX);
  });
});

const ENDINGS = [
  {
    name: "quit",
    what: "is told to quit",
    options: [],
    end: (qemu: TestQemu) => atMonitor(world, qemu, "quit"),
    // Whoever is at the monitor hears it alone.
    error: { code: "guest-shutdown", side: "source", reason: /process \d+, was ended in good order/ },
    left: "no-such-guest",
  },
  {
    name: "term",
    what: "is told to end by a signal",
    options: [],
    end: async () => void process.kill(pidOfQemu(world, "term", "source"), "SIGTERM"),
    error: { code: "guest-shutdown", side: "source", reason: /told to end .host-signal/ },
    left: "no-such-guest",
  },
  {
    name: "stays",
    what: "shuts down and stays, as with -no-shutdown",
    options: ["-action", "reboot=shutdown,shutdown=pause"],
    end: (qemu: TestQemu) => atMonitor(world, qemu, "system_reset"),
    error: { code: "guest-shutdown", side: "source", reason: /has ended at the source/ },
    left: "shutdown",
  },
  {
    name: "killed",
    what: "is killed",
    options: [],
    end: async () => void process.kill(pidOfQemu(world, "killed", "source"), "SIGKILL"),
    error: { code: "guest-failed", side: "source", reason: /process \d+, is gone without a word/ },
    left: "no-such-guest",
  },
] as const;

suite(`a QEMU that ends in precopy${because}`, () => {
  it.each(ENDINGS)("and $what ends the migration, with that reason", async ({ name, options, end, error, left }) => {
    const { source, destination } = await startQemuPair(world, name, { moreOptions: options });
    const journey = await world.migrate(name, "b", { parameters: HELD });
    await journey.until(isMidway);
    const since = Date.now();
    await end(source);
    const ended = await journey.end;
    expect(ended, world.log().slice(-4000)).toMatchObject({
      status: "failed",
      error: { ...error, reason: expect.stringMatching(error.reason) },
    });
    expect(Date.now() - since).toBeLessThan(AT_ONCE_MS);
    await expectClosed(name, { state: "source", node: "a" });
    await eventually("the source is as it was left", async () => (await runStateOf(source)) === left);
    await expectDestinationWaits(name, destination);
  });

  it("leaves the way free for the next guest of its name", async () => {
    const { source, destination } = await startQemuPair(world, "next");
    const journey = await world.migrate("next", "b", { parameters: HELD });
    await journey.until(isMidway);
    process.kill(pidOfQemu(world, "next", "source"), "SIGKILL");
    await journey.end;
    await eventually("the source is gone", async () => (await runStateOf(source)) === "no-such-guest");
    const again = await startQemuAt(world, "next", "source");
    await world.run(again.awaitSerial((text) => text.includes("B")));
    expect(await (await world.migrate("next", "b")).end).toMatchObject({ status: "completed" });
    expect(await runStateOf(destination)).toBe("running");
  });

  it("at the destination ends the migration, and is started anew for the next one", async () => {
    const { source, destination } = await startQemuPair(world, "incoming");
    const journey = await world.migrate("incoming", "b", { parameters: HELD });
    await journey.until(isMidway);
    process.kill(pidOfQemu(world, "incoming", "destination"), "SIGKILL");
    const end = await journey.end;
    expect(end, world.log().slice(-4000)).toMatchObject({
      status: "failed",
      error: { code: "guest-failed", side: "destination" },
    });
    expect(await runStateOf(source)).toBe("running");
    await expectClosed("incoming", { state: "source", node: "a" });
    expect(
      await (await world.migrate("incoming", "b", { parameters: { "max-bandwidth": 256 * MIB } })).end,
      world.log().slice(-4000),
    ).toMatchObject({ status: "completed" });
    expect(await runStateOf(destination)).toBe("running");
  });
});
