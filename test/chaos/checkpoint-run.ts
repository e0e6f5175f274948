/**
 * One save and one restore under one schedule: a guest is saved while it runs, its host loses it, and it is restored on the other one.
 *
 *     old checkpoint, undisturbed -> save over it, disturbed -> is it whole, does the guest run? -> the guest is killed
 *       -> restore elsewhere, disturbed, asked for again until it runs -> judged
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { randomId } from "@godwit/actor";
import { openGuest, openRegistry } from "@godwit/guest";
import { type CheckpointInfo, GodwitError, isCheckpointOver, type MigrationId } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { queryRestore, querySave, restore, save } from "../../services/cli/src/client.ts";
import { endGuest } from "../integration/checkpoint-journey.ts";
import { MIB, runStateOf } from "../integration/world.ts";
import { type Arena, forPostcopy, type NodeName, otherNode } from "./arena.ts";
import { type End, fileAt, wrongWithFile } from "./checkpoint-file.ts";
import type { Schedule } from "./fault.ts";
import { incarnationsOf, judgeGuest } from "./judge.ts";
import { watchOverlap } from "./overlap.ts";
import type { Outcome } from "./run.ts";
import { makeRunLog, type RunLog } from "./run-log.ts";
import { armStrikes, type Strikes } from "./strikes.ts";

/** From the end of the last fault until a save has ended, or a guest runs that shall be restored, ms; longer is stuck. */
const END_MS = 60_000;
const ASK_AGAIN_MS = 50;
/** A save of several rounds, and a lazy restore that takes a second and more: faults find them on their way. */
const SAVING = { "downtime-limit": 300, "max-bandwidth": 24 * MIB };
const PAGING = { "max-postcopy-bandwidth": 16 * MIB };

interface Journey {
  readonly arena: Arena;
  readonly source: NodeName;
  readonly destination: NodeName;
  /** The file that is written over again and again. */
  readonly path: string;
  readonly uri: string;
  readonly ids: Set<string>;
  readonly log: RunLog;
}

const answerOf = async <A>(arena: Arena, ask: Parameters<typeof arena.world.run<A, GodwitError>>[0]) =>
  arena.world.run(ask).catch((error: unknown) => {
    if (error instanceof GodwitError) return error;
    throw error;
  });

/** Follows what was asked for to its end; `isPatient` says whether it may still come. */
const endOf = async (
  arena: Arena,
  ask: ReturnType<typeof querySave>,
  isPatient: () => boolean,
  seen: (info: CheckpointInfo) => void,
): Promise<End> => {
  while (isPatient()) {
    const answer = await answerOf(arena, ask);
    if (!(answer instanceof GodwitError)) {
      seen(answer);
      if (isCheckpointOver(answer)) return answer.status;
    } else if (answer.code === "no-such-checkpoint") return "gone";
    await after(ASK_AGAIN_MS);
  }
  return null;
};

const patience = (strikes: Strikes | null): (() => boolean) => {
  const beganAt = Date.now();
  return () => {
    const quietSince = strikes === null ? beganAt : strikes.quietSince();
    return quietSince === null || Date.now() - Math.max(quietSince, beganAt) < END_MS;
  };
};

const saveOnce = async ({ arena, source, uri, ids, log }: Journey, strikes: Strikes | null): Promise<End> => {
  const isPatient = patience(strikes);
  const id = randomId() as MigrationId;
  ids.add(id);
  const asked = {
    ...{ id, guest: arena.guest, uri, capabilities: {}, stop: false, checksums: false },
    parameters: strikes === null ? {} : SAVING,
  };
  while (isPatient()) {
    const answer = await answerOf(arena, save(source, asked));
    if (!(answer instanceof GodwitError)) {
      const end = await endOf(arena, querySave(source, { id }), isPatient, () => {});
      log.note(`save ${id}: ${end ?? "never ended"}`);
      return end;
    }
    log.note(`save ${id}: ${answer.code}`);
    await after(ASK_AGAIN_MS);
  }
  return null;
};

/** A host that has lost the guest, and its operator who says so. */
const loseGuest = async ({ arena, source }: Journey): Promise<void> => {
  const { spec } = arena.world.processesOf(arena.guest)[0]!;
  await endGuest(arena.world, spec);
  await arena.world.run(Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.discard)));
  openRegistry(arena.world.cluster.settingsOf(source).runtimeDirectory).remove(arena.guest);
};

const runsAt = async ({ arena, destination }: Journey): Promise<boolean> => {
  const [only, ...others] = arena.world.processesOf(arena.guest);
  if (only?.node !== destination || others.length > 0) return false;
  return (await runStateOf(arena.world, only.spec)) === "running";
};

/** As an operator does it: asked for again as long as it has not come to anything. Returns how often it was asked for; null: it never ran. */
const restoreAtLast = async (journey: Journey, lazy: boolean, strikes: Strikes): Promise<number | null> => {
  const { arena, destination, uri, ids, log } = journey;
  const isPatient = patience(strikes);
  const flags = { stop: false, takeOver: false, lazy };
  for (let asked = 1; isPatient(); asked++) {
    const id = randomId() as MigrationId;
    ids.add(id);
    const parameters = lazy ? PAGING : {};
    const answer = await answerOf(
      arena,
      restore(destination, { id, guest: arena.guest, uri, parameters, capabilities: {}, ...flags }),
    );
    // The answer may be lost, and the restore be under way all the same.
    const end = await endOf(arena, queryRestore(destination, { id }), isPatient, (info) => {
      if (info.status === "postcopy-active") arena.witness.tell({ _tag: "Paging", id });
    });
    log.note(`restore ${id}: ${answer instanceof GodwitError ? `${answer.code}, ` : ""}${end ?? "never ended"}`);
    if (end === "completed" || (await runsAt(journey))) return asked;
    await after(ASK_AGAIN_MS);
  }
  return null;
};

/** Rejects when the arena itself is broken. */
export const runCheckpoint = async (
  world: Arena,
  schedule: Schedule,
  isKnown: (violation: string) => boolean,
): Promise<Outcome> => {
  const arena = forPostcopy(world);
  const source = arena.world.processesOf(arena.guest)[0]?.node as NodeName | undefined;
  if (source === undefined) throw new Error(`guest ${arena.guest} is gone`);
  const { checkpointDirectory } = arena.world.cluster.settingsOf(source);
  mkdirSync(checkpointDirectory, { recursive: true });
  const log = makeRunLog();
  const path = join(checkpointDirectory, arena.guest);
  const ids = new Set<string>();
  const journey: Journey = { arena, source, destination: otherNode(source), path, uri: `file:${path}`, ids, log };
  const lazy = schedule.faults.some(({ phase }) => phase === "paging") || schedule.seed % 2 === 0;
  const isLazy = lazy && schedule.faults.every(({ phase }) => phase !== "restoring");
  log.note(`saved at node ${source}, restored ${isLazy ? "lazily " : ""}at node ${journey.destination}`);

  const first = await saveOnce(journey, null);
  const old = fileAt(path);
  if (first !== "completed" || "wrong" in old) throw new Error(`no checkpoint to begin with: ${first}`);
  const before = incarnationsOf(arena);
  const beganAt = Date.now();
  const overlap = watchOverlap(arena);
  const strikes = armStrikes(arena, schedule.faults, source, (id) => ids.has(id), log);
  const scene = () => ({ because: "it was restored", ids: [...ids], before, killed: strikes.killed() });
  try {
    const saved = await saveOnce(journey, strikes);
    const violations = [...wrongWithFile(path, old.inode, saved)];
    const unhurt = { ...scene(), at: source, because: "it was only saved" };
    if (saved !== "completed") violations.push(...(await judgeGuest(arena, unhurt, { isKnown })));
    await loseGuest(journey);
    const asked = await restoreAtLast(journey, isLazy, strikes);
    const freeMs = Date.now() - beganAt;
    if (asked === null) violations.push("stuck: the guest was not restored");
    await strikes.end();
    await arena.everybodyUp();
    log.note("every fault is over, and every actor is up");
    violations.push(...(await overlap.end()).map((line) => `overlap: ${line}`));
    violations.push(...(await judgeGuest(arena, { ...scene(), at: journey.destination }, { isKnown })));
    log.note(`judged: ${violations.length} violations; ${overlap.looks()} looks for a second copy`);
    return {
      schedule,
      migration: [...ids].at(-1) as MigrationId,
      source,
      outcome: asked === null ? "stuck" : "completed",
      status: saved ?? "none",
      error: null,
      attempts: asked ?? 0,
      downtimeMs: null,
      freeMs,
      resentItems: 0,
      resent: { packets: 0, bytes: 0 },
      struck: [...strikes.struck()],
      violations: violations.filter((line) => !isKnown(line)),
      log: log.lines(),
    };
  } finally {
    await strikes.end();
    await overlap.end();
  }
};
