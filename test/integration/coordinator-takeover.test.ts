import { performance } from "node:perf_hooks";
import { Fabric } from "@godwit/fabric";
import { json, type MigrationInfo, OwnerRequest, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  cancel,
  follow,
  listMigrations,
  migrate,
  queryMigrate,
  resumePaused,
  setParameters,
} from "../../services/cli/src/client.ts";
import { HELD } from "./held.ts";
import { isMidway, type Journey, makeJourney } from "./journey.ts";
import { expectMoved, expectRunsOnce, expectStayed } from "./outcome.ts";
import { joinAsStranger, type Stranger } from "./stranger.ts";
import {
  type Fallen,
  fell,
  firstWord,
  freeze,
  SPOKEN,
  TAKEN_OVER_WITHIN_MS,
  tenureOf,
  type Word,
  wordOf,
} from "./takeover.ts";
import { eventually, MIB, openWorld, type World } from "./world.ts";

let world: World;
let strangers: ReadonlyArray<Stranger>;
const figures: string[] = [];
beforeAll(async () => {
  world = await openWorld({ coordinators: 2 });
  strangers = await Promise.all(SPOKEN.map((subject) => joinAsStranger(world, subject)));
});
afterAll(async () => {
  console.info(`a successor's first word after, ms:\n${figures.join("\n")}`);
  for (const stranger of strangers ?? []) await stranger.close();
  await world?.close();
});

/** An answer that the dead owed, or that one who is stopped still owes, does not come: whoever asks, asks again. */
const insist = <A>(ask: () => Effect.Effect<A, { readonly code: string }, Fabric>): Promise<A> =>
  world.run(Effect.retry(Effect.suspend(ask), { times: 5, while: ({ code }) => code === "nats-unreachable" }));

const journeyOf = async (migration: MigrationInfo["migration"]): Promise<Journey> =>
  makeJourney(await insist(() => queryMigrate({ migration })), (seen) => insist(() => follow(migration, seen)));

const PAUSING = { "pause-before-switchover": true };
type Settings = { readonly parameters: Record<string, unknown>; readonly capabilities: Record<string, boolean> };
/** However many passes it takes: some of this goes on for longer than the other tests. */
const HELD_ON: Settings = { parameters: { ...HELD, "max-passes": 0 }, capabilities: {} };
const WAITING: Settings = { parameters: { "max-bandwidth": 0 }, capabilities: PAUSING };

/** Begins a migration; resolves with its id as soon as it is under way, whoever answers, and whether somebody does. */
const begin = async (name: string, { parameters, capabilities }: Settings, at?: Moment["at"]) => {
  await world.startGuest({ name, memoryBytes: 24 * MIB, dirtyRateBytesPerSecond: MIB });
  const moment = at === undefined ? null : firstWord(strangers, at, () => freeze(world));
  const begun = firstWord(strangers, (word) => word.name === "Claim");
  void world.run(migrate({ guest: name, destination: "b", parameters, capabilities })).catch(() => undefined);
  await moment;
  return (await begun).migration as MigrationInfo["migration"];
};

const letGo = (journey: Journey): Promise<unknown> =>
  insist(() => setParameters({ migration: journey.id, parameters: { "downtime-limit": 300, "max-bandwidth": 0 } }));
const goOn = (journey: Journey): Promise<unknown> => insist(() => resumePaused({ migration: journey.id }));

interface Moment {
  readonly state: string;
  readonly settings: Settings;
  /** The word at which the owner falls; without one, when `reached` resolves. */
  readonly at?: (word: Word) => boolean;
  readonly reached?: (journey: Journey) => Promise<unknown>;
  /** What leads to `at`. */
  readonly lead?: (journey: Journey) => Promise<unknown>;
  /** What is left to do once it has been taken over. */
  readonly after: (journey: Journey) => Promise<unknown>;
  readonly ends: "completed" | "cancelled";
  readonly attempts?: number;
}

const nothing = async (): Promise<void> => undefined;
const MOMENTS: ReadonlyArray<Moment> = [
  {
    state: "claiming",
    settings: HELD_ON,
    at: (word) => word.name === "Claim",
    after: letGo,
    ends: "completed",
  },
  {
    state: "setup",
    settings: HELD_ON,
    at: (word) => word.what === "report.source" && word.name === "claimed",
    after: letGo,
    ends: "completed",
  },
  {
    state: "active",
    settings: HELD_ON,
    reached: (journey) => journey.until(isMidway),
    after: letGo,
    ends: "completed",
    attempts: 1,
  },
  {
    state: "pre-switchover",
    settings: WAITING,
    reached: (journey) => journey.until((info) => info.status === "pre-switchover"),
    after: goOn,
    ends: "completed",
    attempts: 1,
  },
  {
    state: "switching",
    settings: WAITING,
    reached: (journey) => journey.until((info) => info.status === "pre-switchover"),
    lead: goOn,
    at: (word) => word.what === "report.source" && word.name === "switching",
    after: nothing,
    ends: "completed",
    attempts: 1,
  },
  {
    state: "cancelling",
    settings: HELD_ON,
    reached: (journey) => journey.until(isMidway),
    lead: (journey) => world.run(cancel({ migration: journey.id })),
    at: (word) => word.name === "Abort",
    after: nothing,
    ends: "cancelled",
  },
];

/** Leads a migration to the moment, at which its owner falls. */
const fallAt = async (moment: Moment, name: string, how: "SIGKILL" | "SIGSTOP") => {
  const early = moment.reached === undefined;
  const id = await begin(name, moment.settings, early ? moment.at : undefined);
  if (early) {
    const fallen = await fell(world, strangers, id, how);
    return { fallen, journey: await journeyOf(id) };
  }
  const journey = await journeyOf(id);
  await moment.reached(journey);
  if (moment.at === undefined) freeze(world);
  else {
    const { at } = moment;
    const reached = firstWord(
      strangers,
      (word) => word.migration === id && at(word),
      () => freeze(world),
    );
    // Its answer may be what the dead owes.
    void moment.lead?.(journey).catch(() => undefined);
    await reached;
  }
  return { fallen: await fell(world, strangers, id, how), journey };
};

const expectTakenOver = async (fallen: Fallen, moment: Moment, how: string): Promise<void> => {
  const successor = await fallen.successor;
  figures.push(`  ${how} in ${moment.state}: ${successor === null ? "had ended" : successor.afterMs.toFixed(0)}`);
  if (successor !== null) expect(successor.afterMs, world.log().slice(-6000)).toBeLessThan(TAKEN_OVER_WITHIN_MS);
};

const expectEnd = async (moment: Moment, journey: Journey, name: string): Promise<void> => {
  if (moment.ends === "completed") {
    const end = await expectMoved(world, journey, "b");
    if (moment.attempts !== undefined) expect(end.attempts).toBe(moment.attempts);
    return;
  }
  expect(await journey.end).toMatchObject({ status: "cancelled", error: { code: "cancelled" } });
  await expectStayed(world, name, "a");
  expect(await expectRunsOnce(world, name)).toBe("a");
};

const bothUp = (): Promise<void> =>
  eventually("both coordinators serve", async () => {
    const up = new Set<string>();
    for (const child of world.cluster.children.values()) {
      if (child.spec.role !== "coordinator") continue;
      if (await isServing(child.member.incarnation)) up.add(child.spec.id);
    }
    return up.size === 2;
  });

const ownerRequests = json(OwnerRequest);
const NOBODYS = "0".repeat(16) as MigrationInfo["migration"];
/** What a coordinator itself says of a migration. */
const askReplica = (incarnation: string, migration: MigrationInfo["migration"]) =>
  world.run(
    Effect.gen(function* () {
      const fabric = yield* Fabric;
      const bytes = ownerRequests.encode({ _tag: "Query", migration });
      const answer = yield* Effect.result(fabric.request(subjects.owner(incarnation), bytes, { timeoutMs: 1000 }));
      if (answer._tag === "Success") return "owner";
      return answer.failure._tag === "GodwitError" ? answer.failure.code : "silent";
    }),
  );
const isServing = async (incarnation: string): Promise<boolean> =>
  (await askReplica(incarnation, NOBODYS)) === "not-the-owner";

describe("the owning coordinator is killed", () => {
  it.each(MOMENTS)("in $state: the other one goes on, and the guest runs once", async (moment) => {
    await bothUp();
    const name = `kill-${moment.state}`;
    const { fallen, journey } = await fallAt(moment, name, "SIGKILL");
    await expectTakenOver(fallen, moment, "killed");
    await moment.after(journey);
    await expectEnd(moment, journey, name);
  });
});

/** Everything that was said under this term, or a lower one, from then on. */
const wordsUnder = (migration: string, term: number, since: ReadonlyArray<number>): ReadonlyArray<string> =>
  strangers.flatMap((stranger, index) =>
    stranger.heard.slice(since[index]).flatMap((message) => {
      const word = wordOf(message);
      const isCommand = word?.what === "node.source" || word?.what === "node.destination";
      return word?.migration === migration && isCommand && word.term <= term ? [word.name] : [];
    }),
  );

/** Wakes it up; it must find out that it has been replaced, and say nothing before but the word that was on its lips when it fell. */
const wakeUp = async (fallen: Fallen, id: MigrationInfo["migration"]): Promise<void> => {
  const since = strangers.map(({ heard }) => heard.length);
  process.kill(fallen.pid, "SIGCONT");
  await eventually(
    "it knows that it has been replaced",
    async () => (await askReplica(fallen.incarnation, id)) === "not-the-owner",
  );
  await Promise.all(strangers.map((stranger) => stranger.flush()));
  expect(wordsUnder(id, fallen.term, since).length).toBeLessThanOrEqual(1);
};

describe("the owning coordinator is stopped", () => {
  it.each(MOMENTS)("in $state, and wakes up when all is over: it does no harm", async (moment) => {
    await bothUp();
    const name = `stop-${moment.state}`;
    const { fallen, journey } = await fallAt(moment, name, "SIGSTOP");
    try {
      await expectTakenOver(fallen, moment, "stopped");
      await moment.after(journey);
      await expectEnd(moment, journey, name);
      if ((await fallen.successor) !== null) await wakeUp(fallen, journey.id);
    } finally {
      process.kill(fallen.pid, "SIGCONT");
    }
    await expectRunsOnce(world, name);
    expect((await insist(() => queryMigrate({ migration: journey.id }))).status).toBe(moment.ends);
  });

  it("for 20 s in precopy, and wakes up while its successor works: nobody is taken for silent", async () => {
    await bothUp();
    const moment = MOMENTS.find(({ state }) => state === "active")!;
    const { fallen, journey } = await fallAt(moment, "wakes-midway", "SIGSTOP");
    try {
      await expectTakenOver(fallen, moment, "stopped for 20 s");
      await new Promise((resolve) => setTimeout(resolve, 20_000));
      await wakeUp(fallen, journey.id);
    } finally {
      process.kill(fallen.pid, "SIGCONT");
    }
    expect(await tenureOf(world, journey.id)).toMatchObject({ term: fallen.term + 1 });
    await letGo(journey);
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });

  it("and so is the other, for 20 s: whoever owns the migration then goes on with it", async () => {
    await bothUp();
    const journey = await journeyOf(await begin("both-sleep", HELD_ON));
    await journey.until(isMidway);
    const pids = [...world.cluster.children.values()].flatMap(({ spec, pid }) =>
      spec.role === "coordinator" ? [pid] : [],
    );
    for (const pid of pids) process.kill(pid, "SIGSTOP");
    try {
      await new Promise((resolve) => setTimeout(resolve, 20_000));
    } finally {
      for (const pid of pids) process.kill(pid, "SIGCONT");
    }
    await letGo(journey);
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
  });
});

describe("any coordinator", () => {
  /** So many requests do not all come to the same one: it would be so once in a thousand runs. */
  const REQUESTS = 10;

  it("takes requests about a migration that another one owns, and shows how it stands now", async () => {
    await bothUp();
    const journey = await journeyOf(await begin("requests", HELD_ON));
    await journey.until(isMidway);
    for (let request = 1; request <= REQUESTS; request++) {
      const before = journey.seen.at(-1)!.ram!.transferred;
      await world.run(setParameters({ migration: journey.id, parameters: { "stall-timeout": 100_000 + request } }));
      const shown = [
        await world.run(queryMigrate({ migration: journey.id })),
        await world.run(queryMigrate({})),
        (await world.run(listMigrations({}))).find(({ migration }) => migration === journey.id)!,
      ];
      for (const info of shown) {
        expect(info).toMatchObject({ migration: journey.id, status: "active" });
        expect(info.ram!.transferred).toBeGreaterThanOrEqual(before);
      }
    }
    await expect(world.run(resumePaused({ migration: journey.id }))).rejects.toMatchObject({ code: "wrong-state" });
    await expect(world.run(queryMigrate({ migration: NOBODYS }))).rejects.toMatchObject({ code: "no-such-migration" });
    const at = performance.now();
    await letGo(journey);
    await expectMoved(world, journey, "b");
    figures.push(`  let go through any coordinator, completed after ${(performance.now() - at).toFixed(0)}`);
    await expect(world.run(cancel({ migration: journey.id }))).rejects.toMatchObject({ code: "wrong-state" });
  });

  it.each(["cancel", "continue"] as const)("takes a %s at the very moment at which the owner dies", async (what) => {
    await bothUp();
    const name = `late-${what}`;
    const journey = await journeyOf(await begin(name, WAITING));
    await journey.until((info) => info.status === "pre-switchover");
    freeze(world);
    const fallen = await fell(world, strangers, journey.id, "SIGKILL");
    await insist(() => (what === "cancel" ? cancel : resumePaused)({ migration: journey.id }));
    expect((await fallen.successor)?.afterMs).toBeLessThan(TAKEN_OVER_WITHIN_MS);
    if (what === "continue") return void (await expectMoved(world, journey, "b"));
    expect(await journey.end).toMatchObject({ status: "cancelled" });
    await expectStayed(world, name, "a");
  });
});
