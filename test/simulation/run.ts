/** Whole migrations on the simulated network, from a seed: faults first, then quiet, then everything must have settled. */
import { SimNetwork, STORMY, type Trace } from "@godwit/fabric/simulation";
import { isEnded, OWNERSHIP_BUCKET, type OwnershipRecord } from "@godwit/protocol";
import type { Breakage } from "./breakage.ts";
import { bootCoordinator, isAsked, savedTruth } from "./coordinator-actor.ts";
import { bootDestination } from "./destination-actor.ts";
import { checkAlways, makeGuest, touch, Violation, write } from "./guest-model.ts";
import { COORDINATORS, LOADER, NODE_A, NODE_B, PAGES, SENDER, WORKERS, word } from "./names.ts";
import { type Fault, loseHost, release, type Strikes } from "./nemesis.ts";
import { between } from "./random-times.ts";
import type { Scene } from "./scene.ts";
import { bootSource } from "./source-actor.ts";
import { bootWorker } from "./worker-actor.ts";

/** How long faults go on, and how long everything may take to settle after them, virtual ms. */
const STORM_MS = 4000;
/** Some storms are so long that a sleeping actor is given up for lost. */
const LONG_STORM_MS = 75_000;
const LONG_STORM_RATE = 0.05;
const SETTLE_MS = 200_000;
/** In half of the runs pages are compared, and some of them change on their way. */
const VERIFY_RATE = 0.5;
const FLIP_RATE = 0.02;
/** Seeds that this divides go to postcopy. */
const POSTCOPY_EVERY = 4;
/** Seeds that this divides find dirty pages by comparison with a copy, and send from it. */
const SHADOW_EVERY = 5;
/** Seeds that this divides go by the direct lane, with and without postcopy. */
const DIRECT_EVERY = 3;
/** Seeds that this divides send deltas. */
const XBZRLE_EVERY = 2;
/** Deltas take some rounds: these are held in precopy for so long, ms, and may converge then. It is said again and again: messages are lost. */
const HELD_MS = { min: 50, max: 1500 };
const LET_GO_EVERY_MS = 300;

const FIRST_MIGRATION = 0xaa;
/** Guests of a run whose phases faults wait for. */
const STRUCK_GUESTS = 4;
/** Of those that go to postcopy: seeds that this divides do so by an operator's word, in the middle of a round, within so many ms. */
const BY_WORD_EVERY = 8;
const BY_WORD_MS = 300;
/** And of those, seeds that this divides are given up. */
const GIVEN_UP_EVERY = 20;

export interface RunOptions {
  readonly broken?: ReadonlyArray<Breakage>;
  readonly trace?: Trace;
  /** Only these, when given; otherwise all. */
  readonly faults?: ReadonlyArray<Fault>;
  readonly verify?: boolean;
  readonly postcopy?: boolean;
  readonly direct?: boolean;
  readonly shadow?: boolean;
  readonly xbzrle?: boolean;
  readonly givesUp?: boolean;
  /** The guest writes all its pages as often as any. */
  readonly hotPages?: number;
  readonly strikes?: Strikes;
}

export interface Outcome {
  readonly ended: string;
  readonly runsAt: "source" | "destination";
  readonly attempts: number;
  /** Coordinators that the migration has had, one after the other. */
  readonly terms: number;
  /** Pages that changed on their way. */
  readonly flips: number;
  /** Pages that came as deltas, and packets that were refused since theirs were of something else. */
  readonly deltas: number;
  readonly otherBases: number;
  /** The guest ran at the destination before its memory was there. */
  readonly wasPostcopy: boolean;
  /** An operator has given it up, and it ended so. */
  readonly wasGivenUp: boolean;
  readonly counters: SimNetwork["counters"];
}

const drawFaults = (network: SimNetwork) => {
  const pick = (rate: number): number => (network.random() < 0.5 ? 0 : network.random() * rate);
  const { register } = STORMY;
  network.faults = {
    delayMs: { min: 0.1, max: network.random() < 0.5 ? 0.5 : 8 },
    dropRate: pick(0.1),
    duplicateRate: pick(0.1),
    reorderRate: pick(0.2),
    reorderMs: 60,
    breakRate: STORMY.breakRate,
    register: {
      lostAnswerRate: pick(0.3),
      lateWriteRate: pick(0.3),
      lateMs: register.lateMs,
      staleReadRate: pick(0.2),
    },
  };
};

const hex = (network: SimNetwork): string =>
  Math.floor(network.random() * 2 ** 32)
    .toString(16)
    .padStart(8, "0")
    .repeat(2);

export interface Outcomes {
  readonly outcomes: ReadonlyArray<Outcome>;
  /** Messages, timers and answers that happened, and how long it took them, virtual ms. */
  readonly steps: number;
  readonly virtualMs: number;
}

/** One migration. */
export const run = (seed: number, options: RunOptions = {}): Outcome => runAll(seed, 1, options).outcomes[0]!;

/** So many guests at once, between the same two hosts. Throws a Violation for the first that is lost, runs twice, or never ends. */
export const runAll = (seed: number, guests: number, options: RunOptions = {}): Outcomes => {
  const { trace } = options;
  const network = new SimNetwork({ seed, ...(trace === undefined ? {} : { trace }) });
  drawFaults(network);
  const verify = network.random() < VERIFY_RATE;
  const flips = network.random() < 0.5 ? FLIP_RATE : 0;
  const switchoverDeadlineMs = network.random() < 0.5 ? 3000 : 150;
  const scenes = Array.from({ length: guests }, (_, number): Scene => {
    const migration = (FIRST_MIGRATION + number).toString(16).padStart(16, "0");
    return {
      network,
      name: `vm${number + 1}`,
      migration,
      route: { migration, source: NODE_A, destination: NODE_B },
      guest: makeGuest(PAGES, options.shadow ?? seed % SHADOW_EVERY === 0),
      broken: new Set(options.broken),
      verify: options.verify ?? verify,
      postcopy: options.postcopy ?? seed % POSTCOPY_EVERY === 0,
      givesUp: options.givesUp ?? (seed % POSTCOPY_EVERY === 0 && seed % GIVEN_UP_EVERY === 0),
      direct: options.direct ?? seed % DIRECT_EVERY === 0,
      xbzrle: options.xbzrle ?? seed % XBZRLE_EVERY === 0,
      flipRate: (options.verify ?? verify) ? flips : 0,
      switchoverDeadlineMs,
      kept: null,
      flips: 0,
      sentPages: new Map(),
      deltas: 0,
      otherBases: 0,
      sourceEnded: () => {},
      incomingEnded: () => {},
      touched: () => {},
      saw: trace === undefined ? () => {} : tracePhases(network, trace),
    };
  });
  // Most faults strike actors, which all guests share.
  for (const scene of scenes.slice(0, STRUCK_GUESTS)) release(scene, options.strikes ?? new Map(), options.faults);
  for (const scene of scenes) {
    if (scene.givesUp) loseHost(scene);
    if (scene.postcopy && seed % BY_WORD_EVERY === 0)
      network.after(network.random() * BY_WORD_MS, () =>
        network.send("supervisor", word(scene.migration, "start-postcopy"), null),
      );
  }
  network.start("supervisor");
  for (const worker of WORKERS) network.start(worker, () => bootWorker(scenes, worker));
  network.start(SENDER, () => bootSource(scenes, hex(network)));
  network.start(LOADER, () => bootDestination(scenes, hex(network)));
  for (const name of COORDINATORS)
    network.start(name, () => bootCoordinator(scenes, { name, owner: hex(network), begins: isAsked(name) }));
  for (const scene of scenes) if (scene.xbzrle && !scene.postcopy) letGo(scene);
  for (const scene of scenes) guestWrites(scene, options.hotPages ?? 1 + Math.floor(network.random() * 30));
  const stormMs = network.random() < LONG_STORM_RATE ? LONG_STORM_MS : STORM_MS;
  // One guest after the other: what must never be stays for longer than a turn, and all of them after every step took most of the time.
  let turn = 0;
  const check = (): void => checkStep(scenes[turn++ % guests]!);
  let steps = network.run({ untilMs: stormMs, check });
  network.quiet();
  const isOver = (): boolean => scenes.every(settled);
  for (let until = stormMs; until < stormMs + SETTLE_MS && !isOver(); until += 500)
    steps += network.run({ untilMs: until + 500, check });
  return { outcomes: scenes.map(judge), steps, virtualMs: network.now() };
};

/** Each phase once, when it begins. */
const tracePhases = (network: SimNetwork, trace: Trace): Scene["saw"] => {
  const shown = new Map<string, string>();
  return (side, phase) => {
    if (shown.get(side) === phase) return;
    shown.set(side, phase);
    trace(network.now(), "phase", side, phase);
  };
};

const letGo = ({ network, guest, migration }: Scene): void => {
  const say = (): void => {
    network.send("supervisor", word(migration, "let-go"), null);
    if (!guest.destinationRuns) network.after(LET_GO_EVERY_MS, say);
  };
  network.after(between(network, HELD_MS.min, HELD_MS.max), say);
};

const recordOf = ({ network, name }: Scene): OwnershipRecord | undefined =>
  network.register(OWNERSHIP_BUCKET).truth(name)?.value as OwnershipRecord | undefined;

/** After every step: what must hold of the guests, and between them and the record. */
const checkStep = (scene: Scene): void => {
  const { guest } = scene;
  const record = recordOf(scene);
  guest.isSaidLost = record?.state === "destination" && record.lost !== undefined;
  checkAlways(guest);
  const state = record?.state ?? "source";
  if (guest.sourceRuns && state !== "source")
    throw new Violation(`the guest runs at the source, the record says ${state}`);
  if (guest.destinationRuns && state !== "destination")
    throw new Violation(`the guest runs at the destination, the record says ${state}`);
};

/** How the migration ended, in the words of whoever coordinates it. */
const endingOf = (scene: Scene): string | null => {
  const status = savedTruth(scene)?.info.status ?? "none";
  return isEnded(status) ? status : null;
};

const settled = (scene: Scene): boolean => {
  const { guest } = scene;
  const ended = endingOf(scene);
  if (ended === null) return false;
  // What is given up is let go at both sides, by whoever was away as well.
  if (ended === "failed" && guest.isSaidLost)
    return !guest.destinationRuns && (guest.sourceDiscarded || guest.sourceEnded);
  if (guest.lost) return true;
  return guest.destinationRuns ? guest.sourceDiscarded : guest.sourceRuns || guest.sourceEnded;
};

/** The guest writes all the time: a hot set, and now and then anywhere. In a postcopy it goes on at the destination while pages are missing. */
const guestWrites = (scene: Scene, hot: number): void => {
  const { network, guest } = scene;
  const pause = between(network, 0.5, 10);
  const beat = (): void => {
    const page = Math.floor(network.random() * (network.random() < 0.9 ? hot : PAGES));
    write(guest, page);
    if (guest.destinationRuns && touch(guest, page)) scene.touched(page);
    if (!guest.destinationRuns || guest.listening) network.after(network.random() * pause * 2, beat);
  };
  beat();
};

const judge = (scene: Scene): Outcome => {
  const { guest, network } = scene;
  const state = recordOf(scene)?.state;
  // The rest of the storm has not been looked at by a guest that waits no more.
  if (guest.destinationRuns) for (let page = 0; page < PAGES; page++) touch(guest, page);
  const saved = savedTruth(scene);
  const ended = endingOf(scene);
  if (saved === null || ended === null) {
    throw new Violation(`the migration never ended (${saved?.info.status}, term ${saved?.term}, record ${state})`);
  }
  if (ended === "completed" && guest.missing.size > 0)
    throw new Violation(`completed, and ${guest.missing.size} pages are missing`);
  if (!guest.sourceRuns && !guest.destinationRuns && !guest.sourceEnded && !guest.lost)
    throw new Violation(`${ended}, and no guest runs (record ${state})`);
  if (guest.destinationRuns !== (ended === "completed"))
    throw new Violation(`${ended}, and the guest runs at the ${guest.destinationRuns ? "destination" : "source"}`);
  if (
    saved.info.error?.code === "postcopy-given-up" &&
    !(guest.isSaidLost && (guest.sourceDiscarded || guest.sourceEnded))
  )
    throw new Violation(`given up, and the source keeps its copy (record ${state})`);
  if (ended === "failed" && saved.info["error-desc"] === undefined) throw new Violation("failed, and nobody says why");
  return {
    ended,
    runsAt: guest.destinationRuns ? "destination" : "source",
    attempts: saved.attempt,
    terms: saved.term,
    flips: scene.flips,
    deltas: scene.deltas,
    otherBases: scene.otherBases,
    wasPostcopy: saved.info["postcopy-requests"] !== undefined,
    wasGivenUp: saved.info.error?.code === "postcopy-given-up",
    counters: network.counters,
  };
};
