/** Who wants the guest moved: begins a migration, lets it go on, cancels it, and asks again where nobody answers. */
import { setTimeout as after } from "node:timers/promises";
import type { Fabric } from "@godwit/fabric";
import { GodwitError, type MigrationId, type MigrationInfo } from "@godwit/protocol";
import type * as Effect from "effect/Effect";
import {
  cancel,
  follow,
  listMigrations,
  migrate,
  resumePaused,
  setParameters,
  startPostcopy,
} from "../../services/cli/src/client.ts";
import { HELD } from "../integration/held.ts";
import { MIB } from "../integration/world.ts";
import type { Arena, NodeName } from "./arena.ts";
import type { MigrationShape, Schedule } from "./fault.ts";
import type { RunLog } from "./run-log.ts";

/** A request that was refused or found nobody is made again, ms. */
const ASK_AGAIN_MS = 100;
/** So long a migration may fail to begin, ms: an operator tries again, too. */
const BEGIN_MS = 60_000;

export interface Operator {
  readonly migration: MigrationId;
  /** Lets a held or pausing migration go on, now and in later attempts. */
  readonly goOn: () => void;
  readonly cancel: () => void;
  /** The last state; rejects when nobody has said anything for a minute. */
  readonly end: Promise<MigrationInfo>;
  /** Asks no more. */
  readonly leave: () => void;
}

/** What a busy machine can do within the default limit is not what is asked here: a device that gives nothing before it is stopped must fit. */
const PATIENT = { "downtime-limit": 3000, "max-bandwidth": 0 };

const START: Record<MigrationShape, { readonly parameters: object; readonly capabilities: Record<string, boolean> }> = {
  // Passes of a guest that writes little take milliseconds.
  held: { parameters: { ...HELD, "max-passes": 0 }, capabilities: {} },
  swift: { parameters: PATIENT, capabilities: {} },
  // No switchover keeps a downtime of 0; and the rest comes so slowly that faults find it on its way.
  postcopy: {
    parameters: {
      "max-bandwidth": 0,
      "downtime-limit": 0,
      "postcopy-after-rounds": 1,
      "max-postcopy-bandwidth": 16 * MIB,
    },
    capabilities: { "postcopy-ram": true, "postcopy-preempt": true },
  },
  pausing: { parameters: PATIENT, capabilities: { "pause-before-switchover": true } },
};

/** Without other news a line of progress is noted so often, ms. */
const PROGRESS_MS = 1000;

const stateOf = ({ status, attempts, ram, channels, ...info }: MigrationInfo): string =>
  [
    `status ${status}, attempt ${attempts}`,
    ...(ram === undefined
      ? []
      : [`pass ${ram["dirty-sync-count"]}, ${ram.remaining} bytes left, ${ram["resent-items"]} items re-sent`]),
    ...(channels === undefined ? [] : [`in flight ${channels.map((channel) => channel["in-flight"]).join(" and ")}`]),
    ...(info["error-desc"] === undefined ? [] : [info["error-desc"]]),
  ].join(", ");

export interface How extends Pick<Schedule, "lane" | "xbzrle"> {
  readonly shape: MigrationShape;
}

/** The answer to the request may be lost, and the migration be under way all the same. */
const beginMigration = async (
  { world, guest }: Arena,
  { shape, lane, xbzrle }: How,
  destination: NodeName,
  isOurs: (migration: string) => boolean,
  { note }: RunLog,
): Promise<MigrationInfo> => {
  const deadline = Date.now() + BEGIN_MS;
  while (true) {
    const { parameters } = START[shape];
    const capabilities = { ...START[shape].capabilities, xbzrle };
    const answer = await world
      .run(migrate({ guest, destination, parameters: { ...parameters, lane }, capabilities }))
      .catch((error: GodwitError) => error);
    if (!(answer instanceof GodwitError)) return answer;
    note(`migrate: ${answer.message}`);
    const known = await world.run(listMigrations({})).catch(() => []);
    const begun = known.find((info) => info.guest === guest && isOurs(info.migration));
    if (begun !== undefined) return begun;
    if (Date.now() > deadline) throw answer;
    await after(ASK_AGAIN_MS);
  }
};

export const startOperator = async (
  arena: Arena,
  how: How,
  destination: NodeName,
  isOurs: (migration: string) => boolean,
  log: RunLog,
): Promise<Operator> => {
  const { world } = arena;
  const { shape } = how;
  const { migration } = await beginMigration(arena, how, destination, isOurs, log);
  let last: MigrationInfo | null = null;
  let mayGoOn = false;
  let left = false;
  let continuing = false;
  let notedAt = 0;

  /** Until it is done, or needless: whoever should answer may be dead just now. */
  const insist = async (
    what: string,
    work: Effect.Effect<unknown, GodwitError, Fabric>,
    isNeedless: (error: GodwitError) => boolean = () => false,
  ): Promise<void> => {
    while (!left) {
      const error = await world.run(work).then(
        () => null,
        (failure: GodwitError) => failure,
      );
      log.note(error === null ? `${what}: done` : `${what}: ${error.code}`);
      if (error === null || isNeedless(error)) return;
      await after(ASK_AGAIN_MS);
    }
  };
  const continueIfPaused = (): void => {
    if (!mayGoOn || continuing || last?.status !== "pre-switchover") return;
    continuing = true;
    // A word that came too late or was lost with its coordinator is said again with the next report of the pause.
    void insist("continue", resumePaused({ migration }), (error) => error.code === "wrong-state").then(() => {
      continuing = false;
    });
  };
  const see = (info: MigrationInfo): void => {
    const isNews = info.status !== last?.status || info.attempts !== last.attempts;
    if (isNews || Date.now() - notedAt > PROGRESS_MS) {
      notedAt = Date.now();
      log.note(stateOf(info));
    }
    last = info;
    continueIfPaused();
  };
  const end = world.run(follow(migration, see));
  // At the first pass, so that most of the memory is missing at first.
  if (shape === "postcopy")
    void insist("start postcopy", startPostcopy({ migration }), ({ code }) => code === "wrong-state");
  return {
    migration,
    goOn: () => {
      mayGoOn = true;
      if (shape === "held") void insist("let go", setParameters({ migration, parameters: PATIENT }));
      continueIfPaused();
    },
    cancel: () => void insist("cancel", cancel({ migration }), (error) => error.code === "wrong-state"),
    end,
    leave: () => {
      left = true;
    },
  };
};
