import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { resumePaused } from "../../services/cli/src/client.ts";
import { expectMoved, expectRunsOnce } from "./outcome.ts";
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
  readonly report?: readonly [side: "source" | "destination", phase: string];
}> = [
  { name: "sender-1", actor: senderOf("a"), when: "as soon as the guest may be moved" },
  { name: "sender-2", actor: senderOf("a"), when: "with the last round handed out", report: ["source", "switching"] },
  { name: "sender-3", actor: senderOf("a"), when: "while the destination loads", report: ["destination", "loading"] },
  { name: "sender-4", actor: senderOf("a"), when: "once the destination runs", report: ["destination", "running"] },
  { name: "loader-1", actor: loaderOf("b"), when: "as soon as the guest may be moved" },
  { name: "loader-2", actor: loaderOf("b"), when: "with the last round handed out", report: ["source", "switching"] },
  { name: "loader-3", actor: loaderOf("b"), when: "while it loads", report: ["destination", "loading"] },
  {
    name: "loader-4",
    actor: loaderOf("b"),
    when: "while it takes the guest over",
    report: ["destination", "committing"],
  },
  { name: "loader-5", actor: loaderOf("b"), when: "once the guest runs", report: ["destination", "running"] },
];

describe("during the switchover", () => {
  it.each(MOMENTS)("$actor.0 dies $when: the guest runs once, whatever the ending", async (moment) => {
    await world.startGuest({ name: moment.name, memoryBytes: 16 * MIB });
    const journey = await world.migrate(moment.name, "b", {
      parameters: { "max-bandwidth": 0 },
      capabilities: { "pause-before-switchover": true },
    });
    await journey.until((info) => info.status === "pre-switchover");
    const pid = world.pidOf(moment.actor);
    const kill = () => void process.kill(pid, "SIGKILL");
    const killed = moment.report === undefined ? null : reported(stranger, journey.id, moment.report, kill);
    await world.run(resumePaused({ migration: journey.id }));
    if (killed === null) kill();
    await killed;
    // A second attempt stops in pre-switchover as the first did.
    void journey
      .until((info) => info.attempts === 2 && info.status === "pre-switchover")
      .then(
        () => world.run(resumePaused({ migration: journey.id })),
        () => undefined,
      );
    const end = await journey.end;
    const node = await expectRunsOnce(world, moment.name);
    expect(node).toBe(end.status === "completed" ? "b" : "a");
    if (end.status !== "completed") {
      expect(["source-lost", "destination-lost", "switchover-deadline"]).toContain(end.error?.code);
      expect(end["error-desc"]).toContain(end.error?.reason);
    }
    const onward = node === "a" ? "b" : "a";
    await expectMoved(world, await world.migrate(moment.name, onward), onward);
  });
});
