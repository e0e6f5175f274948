/** Postcopy of an unmodified QEMU by real actors: it runs at the destination before its memory is there, and counts on where it stopped. */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import {
  type BootProgram,
  checkBootGuest,
  openGuest,
  qemuIsInstalled,
  type TestQemu,
  type TestQemuOptions,
} from "@godwit/guest";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cancel, startPostcopy } from "../../services/cli/src/client.ts";
import { HUGE_BYTES, hugePagesObstacle, mountHugePages, reserveHugePages } from "../huge-pages.ts";
import { HELD, letGo } from "../integration/held.ts";
import { isMidway, type Journey } from "../integration/journey.ts";
import { eventually, loaderOf, MIB, openWorld, senderOf, type World, workersOf } from "../integration/world.ts";
import { pidOfQemu, startQemuAt } from "./qemu-world.ts";

const installed = qemuIsInstalled();
const because = installed ? "" : " (skipped: no qemu-system-x86_64 in PATH)";
const suite = installed ? describe : describe.skip;

let world: World;
beforeAll(async () => {
  if (installed) world = await openWorld();
});
afterAll(() => world?.close());

const MEMORY_BYTES = 64 * MIB;
/** 64 MiB/s: all of its memory once a second, four times as fast as it may be sent. */
const BUSY: Partial<BootProgram> = { burstPages: 160 };
const SLOW = { "max-bandwidth": 16 * MIB, "downtime-limit": 20, "stall-timeout": 0 };
const POSTCOPY = { "postcopy-ram": true, "postcopy-preempt": true };

const startPair = async (
  name: string,
  program: Partial<BootProgram> = BUSY,
  optionsAt: (node: string) => Partial<TestQemuOptions> = () => ({}),
) => {
  const options = { memoryBytes: MEMORY_BYTES, program };
  const source = await startQemuAt(world, name, "source", { ...options, ...optionsAt("a") });
  const destination = await startQemuAt(world, name, "destination", { ...options, ...optionsAt("b") });
  await world.run(source.awaitSerial((text) => text.includes("B")));
  return { source, destination };
};

const begin = async (name: string, parameters: Readonly<Record<string, unknown>>) => {
  const journey = await world.migrate(name, "b", {
    parameters: { ...SLOW, ...parameters },
    capabilities: POSTCOPY,
  });
  await journey.until(({ ram }) => (ram?.["dirty-sync-count"] ?? 0) >= 2);
  await world.run(startPostcopy({ migration: journey.id }));
  await journey.until(({ status }) => status === "postcopy-active");
  return journey;
};

/** It counts on, and no counter is behind, or ahead, of the others. */
const expectMoved = async (journey: Journey, { source, destination }: { source: TestQemu; destination: TestQemu }) => {
  const end = await journey.end;
  expect(end, world.log().slice(-6000)).toMatchObject({ status: "completed", destination: "b" });
  const before = destination.serial().length;
  await world.run(destination.awaitSerial((text) => text.length > before + 1));
  await world.run(Effect.scoped(Effect.flatMap(openGuest(destination.spec), (guest) => guest.pause)));
  const ledger = checkBootGuest(readFileSync(destination.ramPath), destination.program);
  expect(ledger.faults).toEqual([]);
  const letters = source.serial() + destination.serial();
  expect("ABCDEFGHIJKLMNOPQRSTUVWXYZBCDEFGHIJKLMNOPQRSTUVWXYZ".startsWith(letters.slice(0, 50)), letters).toBe(true);
  return end;
};

suite(`a QEMU guest that writes faster than it can be sent${because}`, () => {
  it("is moved by postcopy when it is asked for, and no update is lost", async () => {
    const pair = await startPair("asked", BUSY, () => ({ moreOptions: ["-smp", "2"] }));
    const journey = await begin("asked", { "max-postcopy-bandwidth": 16 * MIB });
    const end = await expectMoved(journey, pair);
    expect(end["postcopy-requests"]).toBeGreaterThan(0);
    expect(end["postcopy-latency"]?.p50).toBeGreaterThan(0);
    // As QEMU has counted it: of its two vCPUs one runs the guest's program, the other one halts.
    const blocked = end["postcopy-vcpu-blocktime"] ?? [];
    expect(blocked).toHaveLength(2);
    expect(Math.min(...blocked)).toBe(0);
    expect(Math.max(...blocked)).toBeGreaterThan(0);
  });

  it("goes on when the destination's loader is killed, which goes on as well", async () => {
    const pair = await startPair("loader");
    const journey = await begin("loader", { "max-postcopy-bandwidth": 8 * MIB });
    await world.kill(loaderOf("b"));
    await expectMoved(journey, pair);
    await eventually("the record is closed", async () => (await world.record("loader"))?.open === false);
    expect(await world.record("loader")).toMatchObject({ state: "destination", node: "b" });
  });

  it("goes on when the workers of its source are killed", async () => {
    const pair = await startPair("workers");
    const journey = await begin("workers", { "max-postcopy-bandwidth": 8 * MIB });
    for (const worker of workersOf("a")) await world.kill(worker);
    await expectMoved(journey, pair);
  });
});

const HUGE_GUEST_BYTES = 32 * MIB;
const HUGE_PAGES_NEEDED = (2 * HUGE_GUEST_BYTES) / HUGE_BYTES;
const obstacle = installed ? hugePagesObstacle(HUGE_PAGES_NEEDED) : "no qemu-system-x86_64 in PATH";
const becauseHuge = obstacle === null ? "" : ` (skipped: ${obstacle})`;

describe.skipIf(obstacle !== null)(`a QEMU guest with memory in huge pages${becauseHuge}`, () => {
  const undo: Array<() => void> = [];
  const directoryAt = (node: string): string => join(world.cluster.settingsOf(node).guestDirectory, "huge");
  beforeAll(() => {
    undo.push(reserveHugePages(HUGE_PAGES_NEEDED));
    for (const node of ["a", "b"]) undo.push(mountHugePages(directoryAt(node)));
  });
  afterAll(() => {
    for (const giveBack of undo.reverse()) giveBack();
  });

  it("is moved by postcopy, each of them whole, though the loader is killed in the middle", async () => {
    const options = (node: string) => ({ memoryBytes: HUGE_GUEST_BYTES, ramDirectory: directoryAt(node) });
    const pair = await startPair("huge", BUSY, options);
    const journey = await begin("huge", { "max-postcopy-bandwidth": 4 * MIB });
    await world.kill(loaderOf("b"));
    const end = await expectMoved(journey, pair);
    expect(end["postcopy-vcpu-blocktime"]).toHaveLength(1);
  });
});

suite(`a QEMU guest whose source is lost in postcopy${because}`, () => {
  it("is lost with it: it ends rather than go on without its pages, and says why", async () => {
    const pair = await startPair("lost");
    const journey = await begin("lost", { "max-postcopy-bandwidth": 4 * MIB });
    process.kill(pidOfQemu(world, "lost", "source"), "SIGKILL");
    rmSync(pair.source.ramPath);
    for (const worker of workersOf("a")) await world.kill(worker);
    const end = await journey.end;
    expect(end, world.log().slice(-6000)).toMatchObject({ status: "failed", error: { code: "postcopy-source-lost" } });
    const left = await world.run(
      Effect.scoped(Effect.flatMap(openGuest(pair.destination.spec), ({ describe }) => Effect.flip(describe))),
    );
    expect(left.code).toBe("no-such-guest");
    expect(await world.record("lost")).toMatchObject({ state: "destination", open: false });
  });
});

suite(`a QEMU guest that can be sent as fast as it writes${because}`, () => {
  it("is moved without postcopy, though it might have been", async () => {
    const pair = await startPair("calm", { burstPages: 20, endAddress: 8 * MIB });
    const journey = await world.migrate("calm", "b", { capabilities: POSTCOPY });
    const end = await expectMoved(journey, pair);
    expect(end["postcopy-requests"]).toBeUndefined();
  });
});

suite(`a QEMU guest whose postcopy has not begun${because}`, () => {
  const CALM = { burstPages: 20, endAddress: 8 * MIB };

  it.each([
    ["the destination's loader", "no-loader", loaderOf("b")],
    ["the source's sender", "no-sender", senderOf("a")],
  ])("is moved though %s is killed, by another QEMU: the first one took what it takes once", async (_, name, actor) => {
    const pair = await startPair(name, CALM);
    const journey = await world.migrate(name, "b", { parameters: HELD, capabilities: POSTCOPY });
    await journey.until(isMidway);
    await world.kill(actor);
    await letGo(world, journey);
    await expectMoved(journey, pair);
  });

  it("is started anew at the destination for another try, once it was cancelled", async () => {
    const pair = await startPair("cancelled", CALM);
    const journey = await world.migrate("cancelled", "b", { parameters: HELD, capabilities: POSTCOPY });
    await journey.until(isMidway);
    await world.run(cancel({ migration: journey.id }));
    expect(await journey.end).toMatchObject({ status: "cancelled" });
    const again = await world.migrate("cancelled", "b", { capabilities: POSTCOPY });
    await expectMoved(again, pair);
  });
});
