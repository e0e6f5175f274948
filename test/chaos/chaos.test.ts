import { openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { queryMigrate } from "../../services/cli/src/client.ts";
import { type Arena, type NodeName, openArena, otherNode } from "./arena.ts";
import { type Fault, isOfCheckpoint, type Schedule } from "./fault.ts";
import { incarnationsOf, judge, type Trial } from "./judge.ts";
import { type Outcome, runSchedule } from "./run.ts";

let arena: Arena;
const former = new Set<string>();
beforeAll(async () => {
  arena = await openArena();
});
afterAll(() => arena?.close());

const UNDISTURBED: Schedule = {
  seed: 0,
  shape: "swift",
  lane: "auto",
  xbzrle: true,
  moment: { phase: "setup", sign: 1 },
  goOnAfterMs: 0,
  cancels: false,
  faults: [],
};

const fault = (of: Pick<Fault, "actor" | "kind" | "phase" | "durationMs">, sign = 1): Schedule => {
  const phase = of.phase === "cancelling" ? "first pass" : of.phase;
  const at = { phase, sign };
  const shape = isOfCheckpoint(phase)
    ? "checkpoint"
    : phase === "postcopy"
      ? "postcopy"
      : phase === "first pass" || phase === "later pass"
        ? "held"
        : "swift";
  return { ...UNDISTURBED, shape, moment: at, faults: [{ ...of, at, delayMs: 0, worker: 0 }] };
};

const KILLED_SAVING = fault({ actor: "RAM sender", kind: "kill", phase: "saving", durationMs: 0 }, 9);

/** Each kind once, at those who have most to lose by it. `npm run chaos` tries them all. */
const SCHEDULES: ReadonlyArray<readonly [string, Schedule]> = [
  ["the RAM sender is killed", fault({ actor: "RAM sender", kind: "kill", phase: "first pass", durationMs: 0 }, 20)],
  ["the loader is paused", fault({ actor: "loader", kind: "pause", phase: "switching", durationMs: 400 })],
  [
    "a multifd worker is cut off",
    fault({ actor: "multifd worker", kind: "cut", phase: "first pass", durationMs: 300 }, 9),
  ],
  [
    "the coordinator is in a black hole",
    fault({ actor: "coordinator (owner)", kind: "blackhole", phase: "loading", durationMs: 500 }),
  ],
  ["the loader is killed in postcopy", fault({ actor: "loader", kind: "kill", phase: "postcopy", durationMs: 0 }, 3)],
  [
    "a multifd worker is paused in postcopy",
    fault({ actor: "multifd worker", kind: "pause", phase: "postcopy", durationMs: 700 }, 2),
  ],
  [
    "the RAM sender is killed, which saves it, and the loader, which restores it",
    {
      ...KILLED_SAVING,
      faults: [
        ...KILLED_SAVING.faults,
        ...fault({ actor: "loader", kind: "kill", phase: "restoring", durationMs: 0 }, 3).faults,
      ],
    },
  ],
  ["NATS is killed", fault({ actor: "NATS", kind: "kill", phase: "stopping", durationMs: 100 })],
];

const telling = ({ violations, log }: Outcome): string => [...violations, ...log].join("\n");

describe("a guest that is moved, or saved and restored", () => {
  it.each(SCHEDULES)("while %s: runs once, and nothing is broken", async (_, schedule) => {
    const outcome = await runSchedule(arena, schedule, former);
    expect(outcome.violations, telling(outcome)).toEqual([]);
    expect(outcome.struck, telling(outcome)).toEqual(schedule.faults.map(() => true));
    expect(outcome.outcome, telling(outcome)).toBe("completed");
  });
});

describe("the judge", () => {
  let trial: Trial;
  let at: NodeName;
  beforeAll(async () => {
    const outcome = await runSchedule(arena, UNDISTURBED, former);
    expect(outcome.violations, telling(outcome)).toEqual([]);
    const { source, migration } = outcome;
    at = otherNode(source);
    const end = await arena.world.run(queryMigrate({ migration }));
    trial = {
      migration,
      source,
      destination: at,
      end,
      cancelled: false,
      before: incarnationsOf(arena),
      killed: new Set(),
    };
  });
  const verdict = async (of: Partial<Trial> = {}): Promise<string> =>
    (await judge(arena, { ...trial, ...of }, { settleMs: 200 })).join("\n");

  it("has nothing to say when all is well", async () => expect(await verdict()).toBe(""));

  it("finds an ending that is none, or is not the one that the guest shows", async () => {
    expect(await verdict({ end: null })).toContain("stuck");
    expect(await verdict({ end: { ...trial.end!, status: "failed" } })).toMatch(
      /without a plain reason(.|\n)*the guest runs at node/,
    );
  });

  it("finds two sides that tell different endings", async () => {
    const end = { ...trial.end!, attempts: trial.end!.attempts + 1 };
    expect(await verdict({ end })).toContain("same ending: the ending was");
  });

  it("finds memory that is not what the guest wrote", async () => {
    const [only] = arena.world.processesOf(arena.guest);
    const ram = openSync(join(arena.world.cluster.settingsOf(at).guestDirectory, `${arena.guest}.ram0`), "r+");
    // The last page lies outside the memory that is written over and over.
    writeSync(ram, Buffer.from("rot"), 0, 3, 24 * 1024 ** 2 - 4096 + 8);
    expect(only?.node).toBe(at);
    expect(await verdict()).toContain("memory is bad");
  });

  it("finds a second copy that runs", async () => {
    await arena.startGuest(otherNode(at));
    expect(await verdict()).toMatch(/runs once: the guest runs 2 times/);
  });
});
