/** One migration under one schedule, and what became of it. */
import { setTimeout as after } from "node:timers/promises";
import { lengthOf, type MigrationId, type MigrationInfo } from "@godwit/protocol";
import { type Arena, forPostcopy, type NodeName, otherNode } from "./arena.ts";
import { runCheckpoint } from "./checkpoint-run.ts";
import type { Schedule } from "./fault.ts";
import { incarnationsOf, judge } from "./judge.ts";
import { atSign } from "./moment.ts";
import { type Operator, startOperator } from "./operator.ts";
import { watchOverlap } from "./overlap.ts";
import { makeRunLog } from "./run-log.ts";
import { armStrikes, type Strikes } from "./strikes.ts";
import type { Resent } from "./witness.ts";

/** From the end of the last fault to the migration's, ms; longer is stuck. */
const END_MS = 60_000;
/** A held or pausing migration that never comes to its moment may go on after this, ms. */
const MOMENT_MS = 20_000;
const LOOK_AGAIN_MS = 200;

export interface Outcome {
  readonly schedule: Schedule;
  readonly migration: MigrationId;
  readonly source: NodeName;
  readonly outcome: "completed" | "back at source" | "stuck";
  readonly status: string;
  readonly error: string | null;
  readonly attempts: number;
  /** Without the stop itself and a wait in pre-switchover. */
  readonly downtimeMs: number | null;
  /** From when it was free to go on to the ending. */
  readonly freeMs: number;
  /** Work items handed out a second time within the last attempt, as its source counts. */
  readonly resentItems: number;
  /** What went over the channels a second time, as heard on NATS: of the direct lane nothing is. */
  readonly resent: Resent;
  readonly struck: ReadonlyArray<boolean>;
  /** One line for each; empty is what is promised. */
  readonly violations: ReadonlyArray<string>;
  readonly log: ReadonlyArray<string>;
}

/** The ending, or null when no fault has been on for END_MS and there is none. */
const endOf = async (operator: Operator, strikes: Strikes): Promise<MigrationInfo | null> => {
  // When nobody says anything any more, it is stuck by and by.
  const ending = operator.end.catch(() => new Promise<never>(() => undefined));
  while (true) {
    const end = await Promise.race([ending, after(LOOK_AGAIN_MS, null)]);
    if (end !== null) return end;
    const quietSince = strikes.quietSince();
    if (quietSince !== null && Date.now() - quietSince > END_MS) return null;
  }
};

/** `former` are the migrations of earlier runs. Rejects when the arena itself is broken. */
export const runSchedule = async (
  world: Arena,
  schedule: Schedule,
  former: Set<string>,
  isKnown: (violation: string) => boolean = () => false,
): Promise<Outcome> => {
  const { shape, lane, xbzrle } = schedule;
  if (shape === "checkpoint") return runCheckpoint(world, schedule, isKnown);
  const arena: Arena = schedule.shape === "postcopy" ? forPostcopy(world) : world;
  const source = arena.world.processesOf(arena.guest)[0]?.node as NodeName | undefined;
  if (source === undefined) throw new Error(`guest ${arena.guest} is gone`);
  const destination = otherNode(source);
  const log = makeRunLog();
  log.note(
    `from node ${source} to node ${destination}, ${schedule.shape}, lane ${schedule.lane}${schedule.xbzrle ? ", xbzrle" : ""}`,
  );
  const isOurs = (migration: string): boolean => !former.has(migration);
  const before = incarnationsOf(arena);
  const overlap = watchOverlap(arena);
  const stopLooking = arena.witness.onSign(({ _tag }) => {
    if (_tag === "Destination") overlap.look();
  });

  const operator = Promise.withResolvers<Operator>();
  let freeAt = Date.now();
  let cancelled = false;
  let came = false;
  const momentCame = (): void => {
    if (came) return;
    came = true;
    void operator.promise.then(async (there) => {
      if (schedule.cancels) {
        cancelled = true;
        return there.cancel();
      }
      if (schedule.shape === "swift" || schedule.shape === "postcopy") return;
      await after(schedule.goOnAfterMs);
      freeAt = Date.now();
      there.goOn();
    });
  };
  const giveUp = atSign(arena.witness, isOurs, schedule.moment, momentCame);
  const tooLate = setTimeout(momentCame, MOMENT_MS);
  const strikes = armStrikes(arena, schedule.faults, source, isOurs, log);
  try {
    const there = await startOperator(arena, { shape, lane, xbzrle }, destination, isOurs, log);
    operator.resolve(there);
    const end = await endOf(there, strikes);
    there.leave();
    const freeMs = Date.now() - freeAt;
    await strikes.end();
    await arena.everybodyUp();
    log.note("every fault is over, and every actor is up");
    const twice = (await overlap.end()).map((line) => `overlap: ${line}`);
    const trial = { migration: there.migration, source, destination, end, cancelled, before, killed: strikes.killed() };
    const violations = [...twice, ...(await judge(arena, trial, { isKnown }))];
    log.note(`judged: ${violations.length} violations; ${overlap.looks()} looks for a second copy`);
    former.add(there.migration);
    return {
      schedule,
      migration: there.migration,
      source,
      outcome: end === null ? "stuck" : end.status === "completed" ? "completed" : "back at source",
      status: end?.status ?? "none",
      error: end?.error?.code ?? null,
      attempts: end?.attempts ?? 0,
      downtimeMs: downtimeOf(end),
      freeMs,
      resentItems: end?.ram?.["resent-items"] ?? 0,
      resent: arena.witness.resentOf(there.migration),
      struck: [...strikes.struck()],
      violations,
      log: log.lines(),
    };
  } finally {
    clearTimeout(tooLate);
    giveUp();
    stopLooking();
    await strikes.end();
    await overlap.end();
  }
};

/** ms; null: it was not handed over. In pre-switchover the guest waits for the operator, who may find no coordinator. */
const downtimeOf = (end: MigrationInfo | null): number | null => {
  if (end?.downtime === undefined) return null;
  const { waterfall } = end;
  const waited = waterfall === undefined ? 0 : lengthOf(waterfall, "stop") + lengthOf(waterfall, "pre-switchover");
  return end.downtime - waited / 1000;
};
