/** One whole migration on the simulated network, from a seed: faults first, then quiet, then everything must have settled. */
import { SimNetwork, STORMY, type Trace } from "@godwit/fabric/simulation";
import { OWNERSHIP_BUCKET, type OwnershipRecord } from "@godwit/protocol";
import type { Breakage } from "./breakage.ts";
import { bootCoordinator, type Saved } from "./coordinator-actor.ts";
import { bootDestination } from "./destination-actor.ts";
import { checkAlways, type GuestModel, makeGuest, Violation, write } from "./guest-model.ts";
import { GUEST, PAGES, WORKERS } from "./names.ts";
import { between } from "./random-times.ts";
import { bootSource } from "./source-actor.ts";
import { bootWorker } from "./worker-actor.ts";

/** How long faults go on, and how long everything may take to settle after them, virtual ms. */
const STORM_MS = 4000;
/** Some storms are so long that a sleeping actor is given up for lost. */
const LONG_STORM_MS = 60_000;
const LONG_STORM_RATE = 0.05;
const SETTLE_MS = 120_000;
/** Faults of actors in one run. */
const ACTOR_FAULTS_MAX = 4;

export interface Outcome {
  readonly ended: string;
  readonly runsAt: "source" | "destination";
  readonly attempts: number;
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

export const run = (
  seed: number,
  options: { readonly broken?: ReadonlyArray<Breakage>; readonly trace?: Trace; readonly zombies?: boolean } = {},
): Outcome => {
  const { trace } = options;
  const broken = new Set(options.broken);
  const network = new SimNetwork({ seed, ...(trace === undefined ? {} : { trace }) });
  drawFaults(network);
  const guest = makeGuest(PAGES);
  const saved: Saved = { term: 0, attempt: 1, migration: null, ended: null };
  network.start("supervisor");
  for (const worker of WORKERS) network.start(worker, () => bootWorker(network, guest, worker));
  network.start("sender", () => bootSource(network, guest, hex(network), broken));
  network.start("loader", () => bootDestination(network, guest, hex(network), broken));
  network.start("coordinator", () => bootCoordinator(network, saved, {}));
  guestWrites(network, guest, options.zombies === true ? PAGES : 1 + Math.floor(network.random() * 30));
  const stormMs = network.random() < LONG_STORM_RATE ? LONG_STORM_MS : STORM_MS;
  if (options.zombies === true) zombies(network);
  else actorFaults(network, stormMs);
  network.run({ untilMs: stormMs });
  network.quiet();
  for (let until = stormMs; until < stormMs + SETTLE_MS && !settled(saved, guest); until += 500)
    network.run({ untilMs: until + 500 });
  return judge(network, saved, guest);
};

const settled = (saved: Saved, guest: GuestModel): boolean =>
  saved.ended !== null &&
  (guest.sourceRuns || guest.destinationRuns) &&
  (!guest.destinationRuns || guest.sourceDiscarded);

/** The guest writes all the time: a hot set, and now and then anywhere. */
const guestWrites = (network: SimNetwork, guest: GuestModel, hot: number): void => {
  const pause = between(network, 0.5, 10);
  const beat = (): void => {
    write(guest, Math.floor(network.random() * (network.random() < 0.9 ? hot : PAGES)));
    checkAlways(guest);
    if (!guest.destinationRuns) network.after(network.random() * pause * 2, beat);
  };
  beat();
};

const actorFaults = (network: SimNetwork, stormMs: number): void => {
  const actors = ["sender", "loader", "coordinator", ...WORKERS];
  const count = Math.floor(network.random() * (ACTOR_FAULTS_MAX + 1));
  for (let fault = 0; fault < count; fault++) {
    const actor = actors[Math.floor(network.random() * actors.length)]!;
    const kind = network.random();
    network.after(network.random() ** 2 * STORM_MS, () => {
      const forMs = between(network, 50, stormMs / 2);
      if (kind < 0.4) {
        network.crash(actor, forMs);
        if (actor.startsWith("worker")) network.send("supervisor", "supervisor.worker", { worker: actor, up: false });
      } else if (kind < 0.7) network.pause(actor, forMs);
      else if (kind < 0.8) network.disconnect(actor, forMs);
      else if (kind < 0.9) {
        zombie(network, forMs);
      } else network.partition(actor, `register:${OWNERSHIP_BUCKET}`, forMs);
    });
  }
  if (network.random() < 0.1)
    network.after(network.random() * 2000, () => network.send("supervisor", "test.cancel", null));
};

/** A worker that outlives an attempt: it sleeps with packets in its hands while everything begins anew. */
const zombie = (network: SimNetwork, forMs: number): void => {
  network.pause(WORKERS[0], forMs);
  network.crash(network.random() < 0.5 ? "sender" : "loader", 50);
};

/** Nothing but zombies, and all of them while pages move. */
const zombies = (network: SimNetwork): void => {
  for (let fault = 0; fault < ACTOR_FAULTS_MAX; fault++) {
    network.after(between(network, 5, 200), () => zombie(network, between(network, 800, 2000)));
  }
};

const judge = (network: SimNetwork, saved: Saved, guest: GuestModel): Outcome => {
  checkAlways(guest);
  const record = network.register(OWNERSHIP_BUCKET).truth(GUEST)?.value as OwnershipRecord | undefined;
  if (saved.ended === null)
    throw new Violation(`the migration never ended (${saved.migration?.phase._tag}, record ${record?.state})`);
  if (!guest.sourceRuns && !guest.destinationRuns)
    throw new Violation(`${saved.ended}, and no guest runs (record ${record?.state})`);
  if (guest.destinationRuns !== (saved.ended === "completed")) {
    throw new Violation(
      `${saved.ended}, and the guest runs at the ${guest.destinationRuns ? "destination" : "source"}`,
    );
  }
  return {
    ended: saved.ended,
    runsAt: guest.destinationRuns ? "destination" : "source",
    attempts: saved.attempt,
    counters: network.counters,
  };
};
