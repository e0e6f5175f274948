/** The one who breaks things: faults drawn from the seed, each at the moment when a side of the migration reaches a phase. */
import type { SimNetwork } from "@godwit/fabric/simulation";
import { MIGRATIONS_BUCKET, OWNERSHIP_BUCKET } from "@godwit/protocol";
import { endSource } from "./guest-model.ts";
import { COORDINATORS, LOADER, SENDER, WORKERS, word } from "./names.ts";
import { between } from "./random-times.ts";
import type { Scene } from "./scene.ts";

export const FAULTS = [
  "crash",
  "sleep",
  "disconnect",
  "register out of reach",
  "host crash",
  "NATS outage",
  "late zombie",
  "cancel",
  "guest ends",
  "incoming guest ends",
] as const;
export type Fault = (typeof FAULTS)[number];

/** Phases of the two sides and of the coordinator at which a fault may strike. */
export const MOMENTS = [
  "coordinator Claiming",
  "coordinator Preparing",
  "coordinator Starting",
  "source Claimed",
  "source OpeningTracker",
  "source Precopy",
  "source Stopping",
  "source SavingDeviceState",
  "source FinalSync",
  "source Switching",
  "source AwaitingCommit",
  "source TakingBack",
  "source Resuming",
  "source Releasing",
  "source Discarding",
  "destination Preparing",
  "destination Ready",
  "destination Loading",
  "destination Committing",
  "destination Starting",
  "destination Closing",
  "destination Running",
] as const;
/** Those that only a postcopy goes through. */
export const POSTCOPY_MOMENTS = [
  ...MOMENTS,
  "source Serving",
  "destination Expecting",
  "destination Paging",
  "coordinator Postcopy",
] as const;
export type Moment = (typeof POSTCOPY_MOMENTS)[number];

/** Phases that pass within a millisecond or two are struck by what comes at once; a long one is struck somewhere in it, ms. */
const AFTER_MS_MAX = 30;
/** Faults of one run. */
const FAULTS_MAX = 4;
/** How long faults last, ms; a long one makes others give the actor up for lost. */
const SHORT_MS = 2000;
const LONG_MS = 70_000;
const LONG_RATE = 0.05;
/** A second chance for what is not reached by then, ms. */
const LATEST_MS = 4000;

/** What has struck where, over many runs: what never struck was not tried. */
export type Strikes = Map<string, number>;
export const strikeKey = (fault: Fault, moment: Moment): string => `${fault} @ ${moment}`;

/** Draws the faults of this run and waits for their moments. */
export const release = (scene: Scene, strikes: Strikes, faults: ReadonlyArray<Fault> = FAULTS): void => {
  const { network } = scene;
  const waiting = new Map<string, Array<() => void>>();
  const count = Math.floor(network.random() * (FAULTS_MAX + 1));
  for (let n = 0; n < count; n++) {
    const fault = faults[Math.floor(network.random() * faults.length)]!;
    const moments = scene.postcopy ? POSTCOPY_MOMENTS : MOMENTS;
    const moment = moments[Math.floor(network.random() * moments.length)]!;
    const actor = drawActor(network);
    const afterMs = network.random() ** 2 * AFTER_MS_MAX;
    const forMs = between(network, 50, network.random() < LONG_RATE ? LONG_MS : SHORT_MS);
    let struck = false;
    const act = (where: string): void => {
      if (struck) return;
      struck = true;
      const key = `${fault} @ ${where}`;
      strikes.set(key, (strikes.get(key) ?? 0) + 1);
      strike(scene, fault, actor, forMs);
    };
    waiting.set(moment, [...(waiting.get(moment) ?? []), () => network.after(afterMs, () => act(moment))]);
    network.after(network.random() * LATEST_MS, () => act("any time"));
  }
  const before = scene.saw;
  scene.saw = (side, phase) => {
    before(side, phase);
    const due = waiting.get(`${side} ${phase}`);
    if (due === undefined) return;
    waiting.delete(`${side} ${phase}`);
    for (const begin of due) begin();
  };
};

/** For how long an operator asks whether it may be given up, and how often, ms. */
const GIVE_UP_WITHIN_MS = 60_000;
const GIVE_UP_EVERY_MS = 2000;
/** How long the host is away, ms: some are back before anybody is believed to be lost. */
const AWAY_MS_MAX = 60_000;

/** In a postcopy one of the two hosts is out of reach, and an operator takes it for lost; it comes back all the same. */
export const loseHost = (scene: Scene): void => {
  const { network } = scene;
  const before = scene.saw;
  let isLost = false;
  scene.saw = (side, phase) => {
    before(side, phase);
    if (isLost || side !== "destination" || phase !== "Paging") return;
    isLost = true;
    const host = network.random() < 0.5 ? [SENDER, ...WORKERS] : [LOADER];
    const awayMs = between(network, 1000, AWAY_MS_MAX);
    network.after(network.random() * AFTER_MS_MAX, () => {
      for (const actor of host) network.disconnect(actor, awayMs);
    });
    for (let ms = GIVE_UP_EVERY_MS; ms <= GIVE_UP_WITHIN_MS; ms += GIVE_UP_EVERY_MS)
      network.after(ms, () => network.send("supervisor", word(scene.migration, "give-up"), null));
  };
};

const drawActor = (network: SimNetwork): string => {
  const actors = [SENDER, SENDER, LOADER, LOADER, ...COORDINATORS, ...WORKERS];
  return actors[Math.floor(network.random() * actors.length)]!;
};

const strike = (scene: Scene, fault: Fault, actor: string, forMs: number): void => {
  const { network, guest } = scene;
  const isWorker = (WORKERS as ReadonlyArray<string>).includes(actor);
  switch (fault) {
    case "crash":
      network.crash(actor, forMs);
      if (isWorker) network.send("supervisor", "supervisor.worker", { worker: actor, up: false });
      return;
    case "sleep":
      return network.pause(actor, forMs);
    case "disconnect":
      return network.disconnect(actor, forMs);
    case "register out of reach":
      network.partition(actor, `register:${MIGRATIONS_BUCKET}`, forMs);
      return network.partition(actor, `register:${OWNERSHIP_BUCKET}`, forMs);
    case "host crash":
      // The destination's host: what was arriving there is gone with it. Once the guest runs there, the guest would be.
      if (guest.destinationRuns || guest.loaded !== null) return network.crash(LOADER, forMs);
      guest.incoming = false;
      if (!scene.broken.has("a restarted loader goes on with memory that is gone")) scene.kept = null;
      return network.crash(LOADER, forMs);
    case "NATS outage":
      for (const each of [SENDER, LOADER, ...COORDINATORS, ...WORKERS]) network.disconnect(each, forMs);
      return;
    case "guest ends":
      // Once it is discarded it has another life, at the destination. In a postcopy the process that is killed holds what is missing there.
      if (guest.sourceDiscarded || (guest.destinationRuns && !guest.listening)) return;
      endSource(guest);
      return scene.sourceEnded();
    case "incoming guest ends":
      // With its device state loaded it may be handed over any moment, and would be lost as with its host.
      if (guest.destinationRuns || guest.loaded !== null) return;
      guest.incoming = false;
      return scene.incomingEnded();
    case "cancel":
      return network.send("supervisor", word(scene.migration, "cancel"), null);
    case "late zombie":
      // A worker that outlives an attempt: it sleeps with packets in its hands while everything begins anew.
      network.pause(WORKERS[0], forMs);
      return network.crash(network.random() < 0.5 ? SENDER : LOADER, 50);
  }
};
