import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resumePaused } from "../../services/cli/src/client.ts";
import { expectRunsOnce } from "./outcome.ts";
import { REPORTS, reported } from "./reported.ts";
import { joinAsStranger, type Stranger } from "./stranger.ts";
import { type ActorName, loaderOf, MIB, openWorld, senderOf, type World } from "./world.ts";

let world: World;
let stranger: Stranger;
beforeAll(async () => {
  world = await openWorld();
  stranger = await joinAsStranger(world, REPORTS);
});
afterAll(async () => {
  await stranger?.close();
  await world?.close();
});

const MOMENTS: ReadonlyArray<{
  readonly name: string;
  readonly actor: ActorName;
  readonly when: string;
  readonly report: readonly [side: "source" | "destination", phase: string];
}> = [
  { name: "sender-1", actor: senderOf("a"), when: "while it stops the guest", report: ["source", "stopping"] },
  { name: "sender-2", actor: senderOf("a"), when: "with the last round handed out", report: ["source", "switching"] },
  { name: "loader-1", actor: loaderOf("b"), when: "while it loads", report: ["destination", "loading"] },
  { name: "loader-2", actor: loaderOf("b"), when: "while it takes over", report: ["destination", "committing"] },
];

describe("told to end during the switchover", () => {
  it.each(MOMENTS)("$actor.0 ends it first, $when: one attempt is enough", async (moment) => {
    await world.startGuest({ name: moment.name, memoryBytes: 16 * MIB });
    const journey = await world.migrate(moment.name, "b", {
      parameters: { "max-bandwidth": 0 },
      capabilities: { "pause-before-switchover": true },
    });
    await journey.until((info) => info.status === "pre-switchover");
    const pid = world.pidOf(moment.actor);
    const told = reported(stranger, journey.id, moment.report, () => void process.kill(pid, "SIGTERM"));
    await world.run(resumePaused({ migration: journey.id }));
    await told;
    const end = await journey.end;
    expect(end).toMatchObject({ status: "completed", attempts: 1 });
    expect(await expectRunsOnce(world, moment.name)).toBe("b");
  });
});
