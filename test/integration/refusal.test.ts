import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startBuiltinIncoming } from "@godwit/guest";
import { isMalformed, json, SourceReport } from "@godwit/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate } from "../../services/cli/src/client.ts";
import { HELD, letGo } from "./held.ts";
import { isMidway } from "./journey.ts";
import { expectMoved, expectProgress, expectStayed } from "./outcome.ts";
import { joinAsStranger } from "./stranger.ts";
import { eventually, MIB, openWorld, runStateOf, type World } from "./world.ts";

const isRoot = process.getuid?.() === 0;
/** Node b's guests lie on a file system of their own that is soon full. */
const SMALL_BYTES = 32 * MIB;

let world: World;
let small = "";
beforeAll(async () => {
  world = await openWorld({
    prepare: (guestDirectory) => {
      small = join(guestDirectory, "b");
      mkdirSync(small, { recursive: true });
      if (isRoot) execFileSync("mount", ["-t", "tmpfs", "-o", `size=${SMALL_BYTES}`, "tmpfs", small]);
    },
    // A process that has just been killed still holds its files for an instant.
    tidy: () => (isRoot ? eventually("nobody uses the small file system", unmounted) : Promise.resolve()),
  });
});
afterAll(() => world?.close());

const unmounted = (): boolean => {
  try {
    execFileSync("umount", [small], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
};

const ask = (guest: string, destination: string, more: object = {}) =>
  world.run(migrate({ guest, destination, parameters: {}, capabilities: {}, ...more }));

describe("a migration that cannot begin is refused at once", () => {
  it("without such a guest, or such a node, or away from where it is", async () => {
    await world.startGuest({ name: "here", memoryBytes: 4 * MIB });
    await expect(ask("nobody", "b")).rejects.toMatchObject({ code: "no-such-guest", reason: /nobody/ });
    await expect(ask("here", "nowhere")).rejects.toMatchObject({ code: "no-such-node", reason: /nowhere.*a, b/ });
    await expect(ask("here", "a")).rejects.toMatchObject({ code: "guest-exists" });
    await expectStayed(world, "here", "a");
  });

  it("with parameters or capabilities that are unknown, out of range or at odds", async () => {
    await world.startGuest({ name: "asked", memoryBytes: 4 * MIB });
    const refused = (more: object) => expect(ask("asked", "b", more)).rejects;
    await refused({ parameters: { "multifd-channel": 2 } }).toMatchObject({ code: "unknown-parameter" });
    await refused({ parameters: { "multifd-channels": 0 } }).toMatchObject({ code: "invalid-parameter" });
    await refused({ capabilities: { teleport: true } }).toMatchObject({ code: "unknown-capability" });
    await refused({ capabilities: { "auto-converge": true, "dirty-limit": true } }).toMatchObject({
      code: "capability-conflict",
    });
    await refused({ capabilities: { multifd: false } }).toMatchObject({ code: "not-supported" });
    await expectStayed(world, "asked", "a");
  });

  it("while another one is moving the guest", async () => {
    await world.startGuest({ name: "busy", memoryBytes: 8 * MIB, dirtyRateBytesPerSecond: MIB });
    const journey = await world.migrate("busy", "b", { parameters: HELD });
    await expect(ask("busy", "b")).rejects.toMatchObject({ code: "migration-in-progress" });
    await letGo(world, journey);
    await expectMoved(world, journey, "b");
  });
});

describe("a destination that does not fit", () => {
  it("has a running guest of that name: guest-exists, and both go on", async () => {
    const ours = await world.startGuest({ name: "twin", memoryBytes: 4 * MIB, seed: 1 });
    const theirs = await world.startGuest({ name: "twin", memoryBytes: 4 * MIB, seed: 2 }, "b");
    const end = await (await world.migrate("twin", "b")).end;
    expect(end).toMatchObject({
      status: "failed",
      error: { code: "guest-exists", side: "destination", actor: "loader" },
    });
    expect(world.processesOf("twin")).toHaveLength(2);
    for (const spec of [ours, theirs]) {
      expect(await runStateOf(world, spec)).toBe("running");
      await expectProgress(world, spec);
    }
  });

  it("waits with another memory: incompatible, with what differs, at the source as well", async () => {
    const stranger = await joinAsStranger(world, "godwit.m.*.*.*.report.source");
    const ours = await world.startGuest({ name: "layout", memoryBytes: 8 * MIB });
    const block = { name: "ram0", lengthBytes: 4 * MIB, hostPageBytes: 4096, path: "", fileOffset: 0 };
    const theirs = await world.run(startBuiltinIncoming("layout", [block], small));
    world.register("b", theirs);
    const end = await (await world.migrate("layout", "b")).end;
    const difference = { what: "length of RAMBlock ram0", mine: String(4 * MIB), yours: String(8 * MIB) };
    const error = { code: "incompatible", side: "destination", differences: [difference] };
    expect(end).toMatchObject({ status: "failed", error });
    expect(end["error-desc"]).toContain("mine 4194304, yours 8388608");
    await stranger.flush();
    const reports = stranger.heard.map(({ data }) => json(SourceReport).decode(data));
    await stranger.close();
    expect(reports.some((report) => !isMalformed(report) && report.failure?.code === "incompatible")).toBe(true);
    expect(reports.find((report) => !isMalformed(report) && report.failure !== undefined)).toMatchObject({
      failure: error,
    });
    await expectProgress(world, ours);
    expect(await runStateOf(world, theirs)).toBe("incoming");
  });

  it.skipIf(!isRoot)("has no room for the memory (needs root to mount a small tmpfs): no-space", async () => {
    await world.startGuest({ name: "large", memoryBytes: 40 * MIB });
    const end = await (await world.migrate("large", "b")).end;
    expect(end).toMatchObject({ status: "failed", error: { code: "no-space", side: "destination" } });
    expect(end.error!.reason).toContain(small);
    await expectStayed(world, "large", "a");
  });

  it.skipIf(!isRoot)("runs out of room on the way (needs root to mount a small tmpfs): no-space", async () => {
    // Nothing but pages that need room.
    const mix = { zero: 0, compressible: 0, random: 100 };
    await world.startGuest({ name: "growing", memoryBytes: 12 * MIB, dirtyRateBytesPerSecond: MIB, mix });
    const journey = await world.migrate("growing", "b", { parameters: { "max-bandwidth": 3 * MIB } });
    await journey.until(isMidway);
    const filler = join(small, "filler");
    const { bavail, bsize } = statfsSync(small);
    writeFileSync(filler, new Uint8Array(bavail * bsize - 2 * MIB));
    const end = await journey.end;
    expect(end).toMatchObject({
      status: "failed",
      error: { code: "no-space", side: "destination", step: "apply pages" },
    });
    await expectStayed(world, "growing", "a");
    rmSync(filler);
    await expectMoved(world, await world.migrate("growing", "b", { parameters: { "max-bandwidth": 0 } }), "b");
  });
});
