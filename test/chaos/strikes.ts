/** The faults of one run, each waiting for its moment. */
import { setTimeout as after } from "node:timers/promises";
import { childKey } from "../../services/cli/src/local-cluster.ts";
import { type ActorName, agentOf, coordinatorOf, loaderOf, senderOf, workerOf } from "../integration/world.ts";
import { type Arena, COORDINATORS, type NodeName, otherNode } from "./arena.ts";
import type { Fault } from "./fault.ts";
import { injure } from "./injury.ts";
import { atSign, ownerOf } from "./moment.ts";
import type { RunLog } from "./run-log.ts";

export interface Strikes {
  /** Whether each fault has struck. */
  readonly struck: () => ReadonlyArray<boolean>;
  /** The actors that were killed, by role, node and id. */
  readonly killed: () => ReadonlySet<string>;
  /** Since when no fault is on, ms of the clock; null: one is, or is about to be. */
  readonly quietSince: () => number | null;
  /** Waits for no further moment; resolves when the faults whose moment has come are over. */
  readonly end: () => Promise<void>;
}

/** Who has this migration in hand, as far as is known. */
interface Cast {
  readonly source: NodeName;
  owner: ActorName;
  /** Numbers of the workers that have a channel. */
  busyWorkers: ReadonlyArray<string>;
}

/** Which process a fault means; null is the server. */
const victimOf = ({ actor, phase, worker }: Fault, { source, owner, busyWorkers }: Cast): ActorName | null => {
  switch (actor) {
    case "coordinator (owner)":
      return owner;
    case "coordinator (other)":
      return coordinatorOf((Number(owner[2]) + 1) % COORDINATORS);
    case "RAM sender":
      return senderOf(source);
    case "loader":
      return loaderOf(otherNode(source));
    case "multifd worker":
      // Pages come out of a file at the node that restores.
      if (phase === "restoring") return workerOf(otherNode(source), worker);
      return workerOf(source, Number(busyWorkers[worker % busyWorkers.length] ?? worker));
    case "VFIO agent (source)":
      return agentOf(source);
    case "VFIO agent (destination)":
      return agentOf(otherNode(source));
    case "NATS":
      return null;
  }
};

/** `isOurs` tells the signs of this run's migration from those of earlier ones. */
export const armStrikes = (
  arena: Arena,
  faults: ReadonlyArray<Fault>,
  source: NodeName,
  isOurs: (migration: string) => boolean,
  log: RunLog,
): Strikes => {
  const struck = faults.map(() => false);
  const killed = new Set<string>();
  const injuries: Promise<void>[] = [];
  let active = 0;
  let quietSince: number | null = Date.now();

  const cast: Cast = { source, owner: coordinatorOf(0), busyWorkers: [] };
  const stopCasting = arena.witness.onSign((sign) => {
    if (sign._tag !== "Source" || !isOurs(sign.report.migration)) return;
    const workers = (sign.report.channels ?? []).map(({ worker }) => worker).filter((worker) => worker !== null);
    if (workers.length > 0) cast.busyWorkers = workers;
  });
  // Asked at the first sign: a coordinator that is hit later, or dead, could not be found any more.
  const ownerKnown = new Promise<void>((resolve) => {
    const heard = arena.witness.onSign((sign) => {
      const migration = ownerOf(sign);
      if (!isOurs(migration)) return;
      heard();
      const found = arena.ownerOf(migration).then((known) => {
        cast.owner = known ?? cast.owner;
      });
      void found.catch((error) => log.note(`the owner is not known: ${error}`)).then(resolve);
    });
  });

  const strike = async (fault: Fault, at: number): Promise<void> => {
    const isCoordinator = fault.actor.startsWith("coordinator");
    // No pause where none is needed: what is done at once is done in the turn of its sign.
    if (fault.delayMs > 0) await after(fault.delayMs);
    if (isCoordinator) await ownerKnown;
    struck[at] = true;
    const victim = victimOf(fault, cast);
    if (victim !== null && fault.kind === "kill") killed.add(childKey(...victim));
    const injury = injure(arena, victim, fault);
    log.note(`${fault.phase}: ${injury.what}`);
    await injury.over;
    log.note(`over: ${injury.what}`);
  };
  const giveUps = faults.map((fault, at) =>
    atSign(arena.witness, isOurs, fault.at, () => {
      active++;
      quietSince = null;
      const whole = strike(fault, at)
        .catch((error) => log.note(`${fault.kind} of ${fault.actor} did not work: ${error}`))
        .then(() => {
          active--;
          if (active === 0) quietSince = Date.now();
        });
      injuries.push(whole);
    }),
  );
  return {
    struck: () => struck,
    killed: () => killed,
    quietSince: () => quietSince,
    end: async () => {
      stopCasting();
      for (const giveUp of giveUps) giveUp();
      await Promise.all(injuries);
    },
  };
};
