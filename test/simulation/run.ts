/** One whole migration on the simulated network, from a seed: faults first, then quiet, then everything must have settled. */
import { SimNetwork, STORMY, type Trace } from "@godwit/fabric/simulation";
import { OWNERSHIP_BUCKET, type OwnershipRecord } from "@godwit/protocol";
import type { Breakage } from "./breakage.ts";
import { bootCoordinator, type Saved } from "./coordinator-actor.ts";
import { bootDestination } from "./destination-actor.ts";
import { checkAlways, type GuestModel, makeGuest, Violation, write } from "./guest-model.ts";
import { COORDINATORS, GUEST, LOADER, PAGES, SENDER, WORKERS } from "./names.ts";
import { type Fault, release, type Strikes } from "./nemesis.ts";
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

export interface RunOptions {
  readonly broken?: ReadonlyArray<Breakage>;
  readonly trace?: Trace;
  /** Only these, when given; otherwise all. */
  readonly faults?: ReadonlyArray<Fault>;
  readonly verify?: boolean;
  /** The guest writes all its pages as often as any. */
  readonly hotPages?: number;
  readonly strikes?: Strikes;
}

export interface Outcome {
  readonly ended: string;
  readonly runsAt: "source" | "destination";
  readonly attempts: number;
  /** Pages that changed on their way. */
  readonly flips: number;
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

export const run = (seed: number, options: RunOptions = {}): Outcome => {
  const { trace } = options;
  const network = new SimNetwork({ seed, ...(trace === undefined ? {} : { trace }) });
  drawFaults(network);
  const verify = network.random() < VERIFY_RATE;
  const flips = network.random() < 0.5 ? FLIP_RATE : 0;
  const scene: Scene = {
    network,
    guest: makeGuest(PAGES),
    broken: new Set(options.broken),
    verify: options.verify ?? verify,
    flipRate: (options.verify ?? verify) ? flips : 0,
    switchoverDeadlineMs: network.random() < 0.5 ? 3000 : 150,
    kept: null,
    flips: 0,
    saw: trace === undefined ? () => {} : tracePhases(network, trace),
  };
  const saved: Saved = { term: 0, attempt: 1, migration: null, ended: null };
  release(scene, options.strikes ?? new Map(), options.faults);
  network.start("supervisor");
  for (const worker of WORKERS) network.start(worker, () => bootWorker(scene, worker));
  network.start(SENDER, () => bootSource(scene, hex(network)));
  network.start(LOADER, () => bootDestination(scene, hex(network)));
  network.start(COORDINATORS[0], () => bootCoordinator(scene, saved));
  guestWrites(scene, options.hotPages ?? 1 + Math.floor(network.random() * 30));
  const stormMs = network.random() < LONG_STORM_RATE ? LONG_STORM_MS : STORM_MS;
  const check = (): void => checkStep(scene);
  network.run({ untilMs: stormMs, check });
  network.quiet();
  for (let until = stormMs; until < stormMs + SETTLE_MS && !settled(saved, scene.guest); until += 500)
    network.run({ untilMs: until + 500, check });
  return judge(scene, saved);
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

const recordOf = ({ network }: Scene): OwnershipRecord | undefined =>
  network.register(OWNERSHIP_BUCKET).truth(GUEST)?.value as OwnershipRecord | undefined;

/** After every step: what must hold of the guests, and between them and the record. */
const checkStep = (scene: Scene): void => {
  const { guest } = scene;
  checkAlways(guest);
  const state = recordOf(scene)?.state ?? "source";
  if (guest.sourceRuns && state !== "source")
    throw new Violation(`the guest runs at the source, the record says ${state}`);
  if (guest.destinationRuns && state !== "destination")
    throw new Violation(`the guest runs at the destination, the record says ${state}`);
};

const settled = (saved: Saved, guest: GuestModel): boolean =>
  saved.ended !== null &&
  (guest.sourceRuns || guest.destinationRuns) &&
  (!guest.destinationRuns || guest.sourceDiscarded);

/** The guest writes all the time: a hot set, and now and then anywhere. */
const guestWrites = ({ network, guest }: Scene, hot: number): void => {
  const pause = between(network, 0.5, 10);
  const beat = (): void => {
    write(guest, Math.floor(network.random() * (network.random() < 0.9 ? hot : PAGES)));
    if (!guest.destinationRuns) network.after(network.random() * pause * 2, beat);
  };
  beat();
};

const judge = (scene: Scene, saved: Saved): Outcome => {
  const { guest, network } = scene;
  const state = recordOf(scene)?.state;
  if (saved.ended === null)
    throw new Violation(`the migration never ended (${saved.migration?.phase._tag}, record ${state})`);
  if (!guest.sourceRuns && !guest.destinationRuns)
    throw new Violation(`${saved.ended}, and no guest runs (record ${state})`);
  if (guest.destinationRuns !== (saved.ended === "completed")) {
    throw new Violation(
      `${saved.ended}, and the guest runs at the ${guest.destinationRuns ? "destination" : "source"}`,
    );
  }
  return {
    ended: saved.ended,
    runsAt: guest.destinationRuns ? "destination" : "source",
    attempts: saved.attempt,
    flips: scene.flips,
    counters: network.counters,
  };
};
