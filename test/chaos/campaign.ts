/** Many runs, one after the other in a world, in several worlds at once; a world that broke a promise is kept no longer. */
import { type Arena, openArena } from "./arena.ts";
import type { Schedule } from "./fault.ts";
import { type Outcome, runSchedule } from "./run.ts";

/** What of a world's log a violation is shown with, characters. */
const LOG_CHARACTERS_MAX = 200_000;
const OPEN_ATTEMPTS = 3;

/** A run, and what its world logged meanwhile if something was wrong; null: nothing was. */
export interface Finding {
  readonly outcome: Outcome;
  readonly actorsLog: string | null;
}

export interface Campaign {
  readonly schedules: ReadonlyArray<Schedule>;
  readonly worlds: number;
  /** Violations that are known already, and not to be told. */
  readonly isKnown: (violation: string) => boolean;
  readonly found: (finding: Finding) => void;
  /** The world itself failed, which is as bad: with the schedule and why. */
  readonly broke: (schedule: Schedule, reason: string) => void;
  readonly isOver: () => boolean;
}

/** One after the other: two dozen processes that start at once on two cores are too late for each other. */
const openInTurn = (): (() => Promise<Arena>) => {
  let last: Promise<unknown> = Promise.resolve();
  return () => {
    const opened = last.then(() => openPatiently());
    last = opened.catch(() => undefined);
    return opened;
  };
};

/** A machine that has much else to do is given another chance: a world that does not come up says nothing about a fault. */
const openPatiently = async (): Promise<Arena> => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await openArena();
    } catch (error) {
      if (attempt === OPEN_ATTEMPTS) throw error;
    }
  }
};

export const runCampaign = async (campaign: Campaign): Promise<void> => {
  const open = openInTurn();
  const left = [...campaign.schedules];
  const world = async (): Promise<void> => {
    let arena: Arena | null = null;
    let former = new Set<string>();
    try {
      while (left.length > 0 && !campaign.isOver()) {
        const schedule = left.shift()!;
        let logBegan = 0;
        try {
          if (arena === null) {
            arena = await open();
            former = new Set();
          }
          logBegan = arena.world.log().length;
          const outcome = await runSchedule(arena, schedule, former, campaign.isKnown);
          const isBad = outcome.violations.length > 0;
          campaign.found({
            outcome,
            actorsLog: isBad ? arena.world.log().slice(logBegan).slice(-LOG_CHARACTERS_MAX) : null,
          });
          // Files that were left are this migration's own: the next one is none the worse for them.
          if (outcome.violations.every((line) => line.startsWith("leftovers"))) continue;
        } catch (error) {
          campaign.broke(schedule, error instanceof Error ? (error.stack ?? error.message) : String(error));
        }
        const broken: Arena | null = arena;
        arena = null;
        await broken?.close();
      }
    } finally {
      await arena?.close();
    }
  };
  await Promise.all(Array.from({ length: campaign.worlds }, world));
};
