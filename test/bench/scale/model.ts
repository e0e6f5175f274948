/**
 * How long a migration takes, and how long the guest stands still, from what its parts were measured to cost. Pure arithmetic.
 *
 * A pass moves so many bytes of pages with a payload, and tells so many of holes. Its stages work at the same time: RAM sender,
 * workers, loader, link. The slowest one decides, or, where they share processors, the sum of their CPU time does:
 *
 *     pass = max(sender, workers / n, loader, bytes / link, (sender + workers + loader) / processors) / efficiency
 *     total = set-up + first sync + first pass + rounds, each (sync + pass over what was written meanwhile) + downtime
 *     downtime = fixed + sync + pass over what was written in the last round
 *
 * What it leaves out: postcopy, verify, compression, duplicates of late items, other guests' load.
 */

const GIB = 1024 ** 3;

/** CPU seconds of each stage for each GiB. */
export interface StageCosts {
  readonly sender: number;
  /** Of all workers together. */
  readonly workers: number;
  readonly loader: number;
}

/** As measured on one kind of host. */
export interface Costs {
  readonly data: StageCosts;
  readonly holes: StageCosts;
  /** What the stages' times come to, over what a pass took: 1 when no stage ever waits without need. */
  readonly efficiency: number;
  readonly setupMs: Line;
  /** Of a later sync: the first one is part of the first pass, since sending begins with it. */
  readonly syncMs: Line;
  /** Without the sync and what the last round moves. */
  readonly downtimeMs: Line;
}

/** A part that does not depend on the guest's memory, and what each GiB of it adds. */
export interface Line {
  readonly fixed: number;
  readonly perGiB: number;
}

export interface Host {
  /** That sender, workers and loader have between them. */
  readonly processors: number;
  readonly workers: number;
  readonly linkBytesPerSecond: number;
}

export interface Load {
  readonly dataBytes: number;
  readonly holeBytes: number;
  readonly dirtyBytesPerSecond: number;
  /** What is written over and over: no round has more. */
  readonly workingSetBytes: number;
  readonly downtimeLimitMs: number;
}

export interface Prediction {
  readonly totalMs: number;
  readonly downtimeMs: number;
  readonly rounds: number;
  /** What a pass over data waits for. */
  readonly bottleneck: "sender" | "workers" | "loader" | "link" | "processors";
  /** False: more is written than moved, or a sync alone takes longer than the limit; `downtimeMs` is then that of a forced switchover. */
  readonly converges: boolean;
}

/** Rounds after which a migration that still writes too much is given up for one that does not converge. */
const ROUNDS_MAX = 100;

export const at = ({ fixed, perGiB }: Line, bytes: number): number => fixed + (perGiB * bytes) / GIB;

/**
 * The line through two measurements, of guests of `bytes`. No part takes less time in a larger guest, nor less than none in an empty one:
 * where two measurements say so it is chance, and what is predicted for a terabyte from it would be less than nothing. Then the line is
 * level at their mean, or goes through the larger one from nothing.
 */
export const lineThrough = (
  one: { readonly bytes: number; readonly value: number },
  other: { readonly bytes: number; readonly value: number },
): Line => {
  const [small, large] = one.bytes < other.bytes ? [one, other] : [other, one];
  const perGiB = ((large.value - small.value) * GIB) / (large.bytes - small.bytes);
  if (perGiB < 0) return { fixed: Math.max(0, (small.value + large.value) / 2), perGiB: 0 };
  const fixed = small.value - (perGiB * small.bytes) / GIB;
  return fixed < 0 ? { fixed: 0, perGiB: Math.max(0, (large.value * GIB) / large.bytes) } : { fixed, perGiB };
};

/** Seconds that each stage needs for a pass, and for all of it where they share processors. */
const stagesOf = ({ data, holes }: Costs, host: Host, dataBytes: number, holeBytes: number) => {
  const of = (stage: keyof StageCosts): number => (data[stage] * dataBytes + holes[stage] * holeBytes) / GIB;
  const [sender, workers, loader] = [of("sender"), of("workers"), of("loader")];
  return {
    sender,
    workers: workers / host.workers,
    loader,
    link: dataBytes / host.linkBytesPerSecond,
    processors: (sender + workers + loader) / host.processors,
  };
};

/** Of a pass over so many bytes, s. */
export const passSeconds = (costs: Costs, host: Host, dataBytes: number, holeBytes: number): number =>
  Math.max(...Object.values(stagesOf(costs, host, dataBytes, holeBytes))) / costs.efficiency;

export const predict = (costs: Costs, host: Host, load: Load): Prediction => {
  const { dataBytes, holeBytes, dirtyBytesPerSecond, workingSetBytes, downtimeLimitMs } = load;
  const memoryBytes = dataBytes + holeBytes;
  const syncMs = at(costs.syncMs, memoryBytes);
  const passMs = (data: number, holes: number): number => passSeconds(costs, host, data, holes) * 1000;
  const writtenIn = (ms: number): number => Math.min(workingSetBytes, (dirtyBytesPerSecond * ms) / 1000);
  const downtimeOf = (bytes: number): number => at(costs.downtimeMs, memoryBytes) + syncMs + passMs(bytes, 0);

  const setupMs = at(costs.setupMs, memoryBytes);
  const firstMs = passMs(dataBytes, holeBytes);
  let roundsMs = firstMs;
  let rounds = 1;
  let left = writtenIn(firstMs);
  // The sync that tells how much is left, and then the decision.
  roundsMs += syncMs;
  while (downtimeOf(left) > downtimeLimitMs && rounds < ROUNDS_MAX) {
    rounds++;
    const roundMs = passMs(left, 0) + syncMs;
    roundsMs += roundMs;
    const next = writtenIn(roundMs);
    if (next >= left) break;
    left = next;
  }
  const downtimeMs = downtimeOf(left);
  const stages = Object.entries(stagesOf(costs, host, dataBytes, 0)) as ReadonlyArray<
    [Prediction["bottleneck"], number]
  >;
  const [bottleneck] = stages.reduce((slowest, stage) => (stage[1] > slowest[1] ? stage : slowest));
  return {
    totalMs: setupMs + roundsMs + downtimeMs,
    downtimeMs,
    rounds,
    bottleneck,
    converges: downtimeMs <= downtimeLimitMs,
  };
};
