import { Fabric } from "@godwit/fabric";
import { checkMemory, openGuest, readStats } from "@godwit/guest";
import {
  type DestinationCommand,
  type DestinationReport,
  decodePacket,
  type SourceCommand,
  type SourceReport,
  subjects,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HELD, letGo } from "./held.ts";
import { FORGED_PAGES, forgedAcknowledgements, forgedPackets, GARBAGE, misshapen } from "./hostile-message.ts";
import { isMidway, type Journey } from "./journey.ts";
import { expectMoved } from "./outcome.ts";
import { joinAsStranger, type Overheard, type Stranger } from "./stranger.ts";
import { eventually, MIB, openWorld, type World } from "./world.ts";

let world: World;
let stranger: Stranger;
beforeAll(async () => {
  world = await openWorld();
  stranger = await joinAsStranger(world, "godwit.>");
});
afterAll(async () => {
  await stranger?.close();
  await world?.close();
});

/** The working set of each guest: small, so that all of it is written anew within half a second. */
const WORKING_SET = MIB;

const begin = async (name: string): Promise<Journey> => {
  await world.startGuest({
    name,
    memoryBytes: 12 * MIB,
    workingSetBytes: WORKING_SET,
    dirtyRateBytesPerSecond: 3 * MIB,
  });
  const journey = await world.migrate(name, "b", { parameters: HELD });
  await journey.until(isMidway);
  return journey;
};

/** Who lives now: a crash would show as another process. */
const pids = (): ReadonlyArray<readonly [string, number]> =>
  [...world.cluster.children].map(([key, { pid }]) => [key, pid] as const);

const sayAll = async (subject: string, messages: ReadonlyArray<Uint8Array>): Promise<void> => {
  for (const message of messages) stranger.say(subject, message);
  // What is published at once may not outgrow what the server keeps for a slow reader.
  await stranger.flush();
};

const routeOf = (migration: string) => ({ migration, source: "a", destination: "b" });

/** Every subject on which somebody listens, while the migration runs. */
const subjectsOf = (migration: string): ReadonlyArray<string> => [
  ...["migrate", "query-migrate", "list", "nodes", "cancel", "continue", "set-parameters"].map(subjects.coordinator),
  ...["a", "b"].flatMap((node) => [
    subjects.node(node, "info"),
    subjects.source(node),
    subjects.sourceQuery(node),
    subjects.destination(node),
    subjects.destinationQuery(node),
    subjects.work(node, "0", "b"),
    subjects.work(node, "1", "b"),
  ]),
  subjects.channel(routeOf(migration), 0),
  subjects.channel(routeOf(migration), 200),
  subjects.acknowledgement(routeOf(migration)),
  subjects.refusal(routeOf(migration)),
  subjects.switching(routeOf(migration)),
  subjects.sourceReport(routeOf(migration)),
  subjects.destinationReport(routeOf(migration)),
  subjects.event(routeOf(migration)),
  "godwit.presence.member.multifd-worker.a.0",
  "godwit.presence.who",
];

/** Requests that mean something without an argument: garbage that is an empty object is a request to them. */
const TAKES_NOTHING = new Set(["cancel", "continue"].map(subjects.coordinator));

const queryDestination = (node: string) =>
  Effect.flatMap(Fabric, (fabric) =>
    fabric.request(subjects.destinationQuery(node), new Uint8Array(0), { timeoutMs: 10_000 }),
  );

const json = (value: object): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

const heardOn = (subject: string): ReadonlyArray<Overheard> =>
  stranger.heard.filter((each) => each.subject === subject);

describe("a stranger on the subjects of a migration", () => {
  it("talks garbage on all of them: nobody crashes, and the guest arrives whole in one attempt", async () => {
    const before = pids();
    const journey = await begin("garbage");
    for (const subject of subjectsOf(journey.id)) {
      const garbage = TAKES_NOTHING.has(subject)
        ? GARBAGE.filter((each) => new TextDecoder().decode(each)[0] !== "{")
        : GARBAGE;
      const sample = heardOn(subject).at(-1);
      await sayAll(subject, [...garbage, ...(sample === undefined ? [] : misshapen(sample.data))]);
    }
    await letGo(world, journey);
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
    expect(pids()).toEqual(before);
  });

  it("forges packets, acknowledgements, reports and commands of other epochs, terms, lives and coordinators: none counts", async () => {
    const before = pids();
    const journey = await begin("forged");
    const [packet] = stranger.heard.filter(({ subject }) => subject.startsWith(`godwit.m.${journey.id}.a.b.ch.`));
    const [ack] = heardOn(subjects.acknowledgement(routeOf(journey.id)));
    await sayAll(packet!.subject, forgedPackets(packet!.data));
    await sayAll(ack!.subject, forgedAcknowledgements(ack!.data));
    // The right epoch at the wrong time: only the record can say that it is time.
    const { epoch } = (await world.record("forged"))!;
    await sayAll(subjects.switching(routeOf(journey.id)), [json({ migration: journey.id, epoch })]);

    const STRANGER = "feedfacecafebeef";
    const failure = { code: "cancelled" as const, actor: "coordinator", step: "cancel", reason: "by a stranger" };
    const ours = { ...routeOf(journey.id), migration: journey.id };
    const old = { ...ours, term: 0, coordinator: STRANGER as never };
    const another = { ...ours, term: 1, coordinator: STRANGER as never };
    const elsewhere = { ...ours, migration: STRANGER as never, term: 9, coordinator: STRANGER as never };
    const info = journey.seen.at(-1)!;
    const toSource: ReadonlyArray<SourceCommand> = [
      { _tag: "Abort", ...old, attempt: 9, failure },
      { _tag: "Conclude", ...old, info },
      { _tag: "Verdict", ...old, epoch, round: 1, verdict: "switch-over" },
      { _tag: "Abort", ...another, attempt: 9, failure },
      { _tag: "Verdict", ...another, epoch, round: 1, verdict: "switch-over" },
      { _tag: "Abort", ...elsewhere, attempt: 9, failure },
    ];
    await sayAll(subjects.source("a"), toSource.map(json));
    const toDestination: ReadonlyArray<DestinationCommand> = [
      { _tag: "Abandon", ...old, epoch, failure },
      { _tag: "Conclude", ...old, info },
      { _tag: "Abandon", ...another, epoch, failure },
      { _tag: "Conclude", ...another, info },
      { _tag: "Abandon", ...elsewhere, epoch, failure },
    ];
    await sayAll(subjects.destination("b"), toDestination.map(json));
    const report = { migration: journey.id, term: 1, incarnation: STRANGER as never };
    const fromDestination: ReadonlyArray<DestinationReport> = [
      { ...report, epoch: epoch + 1, phase: "failed", round: 1, life: 0, "dropped-packets": 0, failure },
      { ...report, epoch, phase: "running", round: 1, life: 0, "dropped-packets": 0 },
    ];
    await sayAll(subjects.destinationReport(routeOf(journey.id)), fromDestination.map(json));
    const fromSource: ReadonlyArray<SourceReport> = [
      { ...report, attempt: 9, phase: "completed", epoch },
      { ...report, attempt: 1, term: 9, phase: "completed", epoch },
    ];
    await sayAll(subjects.sourceReport(routeOf(journey.id)), fromSource.map(json));
    await letGo(world, journey);
    const end = await expectMoved(world, journey, "b");
    expect(end.attempts).toBe(1);
    expect(end.ram!.normal).toBeLessThan(FORGED_PAGES);
    expect(pids()).toEqual(before);
  });

  it("says the first round again in later ones and in the last, and everything afterwards: nothing changes", async () => {
    const before = pids();
    const from = stranger.heard.length;
    const journey = await begin("replayed");
    const ofMigration = ({ subject, data }: Overheard): boolean =>
      subject.startsWith(`godwit.m.${journey.id}.`) || Buffer.from(data).includes(journey.id);
    const secondRound = await journey.until((info) => info.ram!["dirty-sync-count"] === 2);
    expect(secondRound.status).toBe("active");
    const recorded = stranger.heard.slice(from).filter(ofMigration);
    const packets = recorded.map(({ data }) => decodePacket(data)).filter(({ kind }) => kind === "pages");
    expect(packets.length).toBeGreaterThan(40);
    const replay = async (messages: ReadonlyArray<Overheard>): Promise<void> => {
      for (const { subject, data } of messages) stranger.say(subject, data);
      await stranger.flush();
    };
    await replay(recorded);
    let lastRound = false;
    stranger.onMessage(({ subject, data }) => {
      if (lastRound || subject !== subjects.sourceReport(routeOf(journey.id))) return;
      if (!Buffer.from(data).includes('"phase":"switching"')) return;
      lastRound = true;
      void replay(recorded);
    });
    await letGo(world, journey);
    expect((await expectMoved(world, journey, "b")).attempts).toBe(1);
    expect(lastRound).toBe(true);
    const [arrived] = world.processesOf("replayed");
    await eventually("the guest has written all of its working set anew", async () => {
      const { pagesWritten } = await world.run(readStats(arrived!.spec));
      return pagesWritten > (2 * WORKING_SET) / 4096;
    });
    // The last round's packets as well, which hold pages as they were.
    await replay(stranger.heard.slice(from).filter(ofMigration));
    // Who has so much to read answers behind it.
    await world.run(queryDestination("b"));
    await world.run(Effect.flatMap(openGuest(arrived!.spec), (guest) => guest.pause));
    expect(await world.run(checkMemory(arrived!.spec))).toMatchObject({ done: true, badCount: 0 });
    await world.run(Effect.flatMap(openGuest(arrived!.spec), (guest) => guest.resume));
    expect(pids()).toEqual(before);
    await expectMoved(world, await world.migrate("replayed", "a"), "a");
  });
});
