/** Kills one multifd worker in the middle of precopy, as a crash would: the migration has to go on. */
import type { Child } from "@godwit/node";
import type { MigrationInfo } from "@godwit/protocol";
import { childKey } from "../local-cluster.ts";

/** In the middle: so much of the guest must have been sent before, as a share of its memory. */
const SENT_BEFORE = 0.1;

export interface KilledWorker {
  readonly worker: string;
  readonly pid: number;
  readonly round: number;
  /** Bytes of the guest that the destination did not hold yet. */
  readonly "remaining-bytes": number;
  /** Bytes on the channels of this worker that were not acknowledged yet. */
  readonly "in-flight-bytes": number;
}

export interface WorkerKiller {
  /** To be called with each state of the migration; kills once, with something in flight. */
  readonly look: (info: MigrationInfo) => void;
  /** Null while it has not come to it. */
  readonly killed: () => KilledWorker | null;
}

export const openWorkerKiller = (
  node: string,
  children: ReadonlyMap<string, Child>,
  told: (killed: KilledWorker) => void,
): WorkerKiller => {
  let killed: KilledWorker | null = null;
  const look = ({ status, ram, channels = [] }: MigrationInfo): void => {
    if (killed !== null || status !== "active" || ram === undefined) return;
    if (ram["dirty-sync-count"] < 2 && ram.remaining > (1 - SENT_BEFORE) * ram.total) return;
    const [busiest] = channels.filter(({ worker }) => worker !== null).sort((a, b) => b["in-flight"] - a["in-flight"]);
    if (busiest === undefined || busiest.worker === null || busiest["in-flight"] === 0) return;
    const child = children.get(childKey("multifd-worker", node, busiest.worker));
    if (child === undefined) return;
    process.kill(child.pid, "SIGKILL");
    killed = {
      worker: busiest.worker,
      pid: child.pid,
      round: ram["dirty-sync-count"],
      "remaining-bytes": ram.remaining,
      "in-flight-bytes": busiest["in-flight"],
    };
    told(killed);
  };
  return { look, killed: () => killed };
};
