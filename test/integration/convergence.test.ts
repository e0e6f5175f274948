import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { expectStayed } from "./outcome.ts";
import { MIB, openWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

/** Of half a second a pass: 8 MiB are dirty again whenever 8 MiB were sent. */
const NEVER = { "max-bandwidth": 16 * MIB, "downtime-limit": 100 };

describe("a guest that dirties memory faster than it may be sent", () => {
  it.each([
    { code: "pass-limit", limit: { "max-passes": 5 }, reason: /^5 passes did not bring .* under 100 ms$/ },
    { code: "migration-deadline", limit: { "migration-deadline": 2500 }, reason: /migration-deadline \(2500 ms\)/ },
    { code: "stalled", limit: { "stall-timeout": 800 }, reason: /dirties memory as fast as it is sent/ },
  ])("stays at the source with $code", async ({ code, limit, reason }) => {
    await world.startGuest({
      name: code,
      memoryBytes: 16 * MIB,
      workingSetBytes: 8 * MIB,
      dirtyRateBytesPerSecond: 64 * MIB,
    });
    const journey = await world.migrate(code, "b", { parameters: { ...NEVER, ...limit } });
    const end = await journey.end;
    expect(end).toMatchObject({
      status: "failed",
      attempts: 1,
      error: { code, actor: "coordinator", step: "converge" },
    });
    expect(end.error!.reason).toMatch(reason);
    expect(end["error-desc"]).toContain(code);
    await expectStayed(world, code, "a");
  });
});
