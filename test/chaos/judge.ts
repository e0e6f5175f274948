/** What must be true after a run, looked at from outside; every breach of it is one line. */

import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as after } from "node:timers/promises";
import { Fabric } from "@godwit/fabric";
import { awaitVerified, type BuiltinSpec, checkMemory, openGuest, openRegistry, readStats } from "@godwit/guest";
import { isEnded, isMalformed, json, type MigrationInfo, MigrationList, REMEDIES, subjects } from "@godwit/protocol";
import { diagnose } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import { queryMigrate } from "../../services/cli/src/client.ts";
import { childKey } from "../../services/cli/src/local-cluster.ts";
import { deviceSockets } from "../integration/guest-process.ts";
import { loaderOf, runStateOf, senderOf } from "../integration/world.ts";
import { type Arena, NODES, type NodeName } from "./arena.ts";
import { runsTwice } from "./overlap.ts";

/** Whatever is not so by then counts as never, ms: a loader that was restarted looks at a record for half a minute before it lets go. */
const SETTLE_MS = 60_000;
/** What is only left lying about harms nobody for a while, ms. */
const TIDY_MS = 15_000;
const LOOK_AGAIN_MS = 50;

/** A migration whose end is to be judged. */
export interface Trial {
  readonly migration: string;
  readonly source: NodeName;
  readonly destination: NodeName;
  /** The last word on it; null: it did not end in time. */
  readonly end: MigrationInfo | null;
  readonly cancelled: boolean;
  /** The incarnation of each actor when the migration began: only a process that was there all the time can know its ending. */
  readonly before: ReadonlyMap<string, string>;
  /** Those whose process a fault has killed. */
  readonly killed: ReadonlySet<string>;
}

/** Of every actor, by role, node and id. */
export const incarnationsOf = ({ world }: Arena): ReadonlyMap<string, string> =>
  new Map([...world.cluster.children].map(([actor, { member }]) => [actor, member.incarnation]));

/** Whoever has had the guest in hand, and where it must be now. */
export interface Scene extends Pick<Trial, "before" | "killed"> {
  /** Null: that does not matter. */
  readonly at: NodeName | null;
  /** Why it must be there, as a clause. */
  readonly because: string;
  /** Migrations, saves and restores of which nothing may be left. */
  readonly ids: ReadonlyArray<string>;
}

type Check = (arena: Arena, scene: Scene) => Promise<ReadonlyArray<string>>;

/** Looks again and again until nothing is wrong or it has been long enough; what was wrong at the last look. */
const settled = async (
  look: () => Promise<ReadonlyArray<string>>,
  withinMs: number,
): Promise<ReadonlyArray<string>> => {
  const deadline = Date.now() + withinMs;
  while (true) {
    const wrong = await look().catch((error) => [`it could not be looked at: ${error}`]);
    if (wrong.length === 0 || Date.now() > deadline) return wrong;
    await after(LOOK_AGAIN_MS);
  }
};

/** Where the guest must be, if it matters: a migration without an ending only must not lose it. */
const belongsAt = ({ end, source, destination }: Trial): NodeName | null => {
  if (end === null) return null;
  return end.status === "completed" ? destination : source;
};

const sceneOf = (trial: Trial): Scene => ({
  at: belongsAt(trial),
  because: `the migration ended as ${trial.end?.status}`,
  ids: [trial.migration],
  before: trial.before,
  killed: trial.killed,
});

const onlyProcess = ({ world, guest }: Arena): { readonly node: string; readonly spec: BuiltinSpec } | null => {
  const [only, ...others] = world.processesOf(guest);
  return only === undefined || others.length > 0 ? null : only;
};

const runsOnce: Check = async (arena, { at, because }) => {
  const twice = await runsTwice(arena);
  if (twice !== null) return [twice];
  const only = onlyProcess(arena);
  if (only === null) {
    const processes = arena.world.processesOf(arena.guest);
    const states = await Promise.all(
      processes.map(async ({ node, spec }) => `${await runStateOf(arena.world, spec)} at ${node}`),
    );
    return [`the guest has ${processes.length} processes: ${states.join(", ")}`];
  }
  const state = await runStateOf(arena.world, only.spec);
  if (state !== "running") return [`the guest's only process, at node ${only.node}, is ${state}`];
  return at !== null && at !== only.node ? [`${because}, and the guest runs at node ${only.node}`] : [];
};

/** Every page, whichever way it came here; the guest stands still meanwhile and goes on. */
const memoryIsRight: Check = async (arena) => {
  const only = onlyProcess(arena);
  // Which one counts is not known; "runs once" has said so.
  if (only === null) return [];
  const { world } = arena;
  const swept = await world.run(
    awaitVerified(only.spec).pipe(
      Effect.timeout(SETTLE_MS),
      Effect.map(({ badCount, bad }) => ({ badCount, bad })),
      // A guest that was started here has had no load, and so no sweep.
      Effect.catchIf(
        (error) => error._tag === "GodwitError" && error.code === "wrong-state",
        () => Effect.succeed({ badCount: 0, bad: [] }),
      ),
    ),
  );
  const checked = await world.run(
    Effect.scoped(
      Effect.gen(function* () {
        const guest = yield* openGuest(only.spec);
        yield* guest.pause;
        return yield* Effect.ensuring(checkMemory(only.spec), Effect.ignore(guest.resume));
      }),
    ),
  );
  return [
    ...[swept].filter(({ badCount }) => badCount > 0).map((found) => `pages came badly: ${JSON.stringify(found)}`),
    ...(checked.badCount === 0 && checked.pagesChecked === checked.pagesTotal
      ? []
      : [`memory is bad: ${JSON.stringify(checked)}`]),
  ];
};

const makesProgress: Check = async (arena) => {
  const only = onlyProcess(arena);
  if (only === null) return [];
  const { pagesWritten } = await arena.world.run(readStats(only.spec));
  return settled(async () => {
    const now = await arena.world.run(readStats(only.spec));
    return now.pagesWritten > pagesWritten ? [] : ["the guest says that it runs, and writes nothing"];
  }, SETTLE_MS);
};

/** Each device of the guest works at the guest's node, with all that it knew, and no other copy of it is left. */
const devicesAreRight: Check = async (arena) => {
  const only = onlyProcess(arena);
  if (only === null) return [];
  const { guestDirectory, runtimeDirectory } = arena.world.cluster.settingsOf(only.node);
  const wrong = deviceSockets(dirname(guestDirectory))
    .filter((socket) => !socket.startsWith(`${guestDirectory}/`) && !socket.includes(`/${arena.otherGuest}.`))
    .map((socket) => `a device of the guest is left at ${socket}`);
  const devices = openRegistry(runtimeDirectory).find(arena.guest)?.devices ?? [];
  if (devices.length !== arena.devices.length) wrong.push(`the guest has ${devices.length} devices`);
  for (const device of devices) {
    if (device.provider !== "simulated") continue;
    const { state, generation, dma } = await arena.world.run(diagnose(device));
    if (state !== "RUNNING") wrong.push(`device ${device.name} is ${state}`);
    if ((dma?.stalePages ?? 0) > 0) wrong.push(`device ${device.name} finds ${dma?.stalePages} stale pages`);
    const before = arena.generations.get(device.name) ?? 0;
    if (generation < before)
      wrong.push(`device ${device.name} has gone back from generation ${before} to ${generation}`);
    arena.generations.set(device.name, generation);
  }
  return wrong;
};

const recordIsClosed: Check = async ({ world, guest }, { at }) => {
  const record = await world.record(guest);
  if (record === null) return [];
  const shown = `${record.state} at ${record.node}, epoch ${record.epoch}${record.open ? ", open" : ""}`;
  if (record.open || record.state === "switching") return [`the ownership record is not closed: ${shown}`];
  return at !== null && record.node !== at ? [`the ownership record says ${shown}; the guest belongs at ${at}`] : [];
};

const endedPlainly = async ({ end, cancelled }: Trial): Promise<ReadonlyArray<string>> => {
  if (end === null) return ["stuck: the migration has not ended"];
  if (!isEnded(end.status)) return [`the migration is said to have ended as ${end.status}`];
  if (end.status === "completed")
    return end.error === undefined ? [] : [`it completed with an error: ${end["error-desc"]}`];
  const { error } = end;
  if (
    error === undefined ||
    !(error.code in REMEDIES) ||
    error.reason === "" ||
    !end["error-desc"]?.includes(error.reason)
  )
    return [`it ended as ${end.status} without a plain reason: ${JSON.stringify(error)}, ${end["error-desc"]}`];
  return end.status === "cancelled" && !cancelled ? ["it ended as cancelled, and nobody had asked for that"] : [];
};

const migrations = json(MigrationList);
const shown = (info: MigrationInfo): string =>
  JSON.stringify([info.status, info.attempts, info.error, info.downtime, info.ram?.normal, info.ram?.transferred]);

/** All who were there show one ending (R10): both sides, and whichever coordinator answers. */
const sameEnding = async (arena: Arena, trial: Trial): Promise<ReadonlyArray<string>> => {
  const { end, source, destination } = trial;
  if (end === null) return [];
  const { world } = arena;
  const word = await world.run(queryMigrate({ migration: end.migration }));
  const sides = [
    ["source", subjects.sourceQuery(source), senderOf(source)],
    ["destination", subjects.destinationQuery(destination), loaderOf(destination)],
  ] as const;
  const wrong =
    shown(word) === shown(end) ? [] : [`the ending was ${shown(end)}, and is now said to be ${shown(word)}`];
  for (const [side, subject, actor] of sides) {
    const answer = await world.run(
      Effect.flatMap(Fabric, (fabric) => fabric.request(subject, new Uint8Array(), { timeoutMs: 2000 })),
    );
    const list = migrations.decode(answer);
    if (isMalformed(list)) {
      wrong.push(`the ${side}'s answer cannot be read: ${list.malformed}`);
      continue;
    }
    const own = list.find(({ migration }) => migration === end.migration);
    if (own === undefined && !trial.killed.has(childKey(...actor)))
      wrong.push(`the ${side} knows no ending of the migration`);
    if (own !== undefined && shown(own) !== shown(word))
      wrong.push(`the ${side} shows ${shown(own)}, the coordinator ${shown(word)}`);
  }
  return wrong;
};

/** An actor that was put to sleep or cut off goes on as the process it was; only who was killed has a successor. */
const nobodyDied: Check = async (arena, { before, killed }) => {
  const now = incarnationsOf(arena);
  return [...before]
    .filter(([actor, incarnation]) => now.get(actor) !== incarnation && !killed.has(actor))
    .map(([actor]) => `${actor} died, and no fault had killed it`);
};

const entriesOf = (directory: string): ReadonlyArray<string> => (existsSync(directory) ? readdirSync(directory) : []);

/** No file and no note of the migration is left at either node; the guest's own are where it runs, and only there. */
const nothingIsLeft: Check = async (arena, scene) => {
  const at = scene.at ?? onlyProcess(arena)?.node;
  const isOurs = (file: string): boolean => scene.ids.some((id) => file.startsWith(id) || file === `restore-${id}`);
  return NODES.flatMap((node) => {
    const { runtimeDirectory, guestDirectory, checkpointDirectory } = arena.world.cluster.settingsOf(node);
    const left = [
      ...["incoming", "ram", "fill", "sealing", "vfio", "."].flatMap((part) =>
        entriesOf(join(runtimeDirectory, part))
          .filter(isOurs)
          .map((file) => `${part}/${file}`),
      ),
      ...entriesOf(join(runtimeDirectory, "paging")).map((file) => `paging/${file}`),
      ...entriesOf(checkpointDirectory).filter((file) => file.endsWith(".partial")),
    ];
    const own = entriesOf(guestDirectory).filter((file) => !file.startsWith(`${arena.otherGuest}.`));
    const files = own.filter((file) =>
      node === at ? file.includes("shadow") : !file.endsWith(".log") && !file.endsWith(".vfio"),
    );
    const spec = openRegistry(runtimeDirectory).find(arena.guest);
    const registered =
      node === at
        ? spec === null
          ? ["the registry does not have the guest"]
          : spec.moving === undefined
            ? []
            : [`the registry has the guest as ${spec.moving}`]
        : spec === null
          ? []
          : ["the registry still has the guest"];
    return [...left, ...files, ...registered].map((what) => `left at node ${node}: ${what}`);
  });
};

/** Those that come true by and by, since actors come up again and tidy; in an order in which the first breach says most. */
const CHECKS: ReadonlyArray<readonly [name: string, check: Check, withinMs: number]> = [
  ["runs once", runsOnce, SETTLE_MS],
  ["record", recordIsClosed, SETTLE_MS],
  ["devices", devicesAreRight, SETTLE_MS],
  ["memory", memoryIsRight, 0],
  ["progress", makesProgress, 0],
  ["deaths", nobodyDied, 0],
  ["leftovers", nothingIsLeft, TIDY_MS],
];

type Look = readonly [name: string, look: () => Promise<ReadonlyArray<string>>, withinMs: number];

interface Patience {
  readonly settleMs?: number;
  /** A breach that is not to be told again. */
  readonly isKnown?: (violation: string) => boolean;
}

const lookAll = async (looks: ReadonlyArray<Look>, patience: Patience): Promise<ReadonlyArray<string>> => {
  const { settleMs = SETTLE_MS, isKnown = () => false } = patience;
  const wrong: string[] = [];
  for (const [name, look, withinMs] of looks) {
    const told = async (): Promise<ReadonlyArray<string>> =>
      (await look()).map((line) => `${name}: ${line}`).filter((line) => !isKnown(line));
    wrong.push(...(await settled(told, Math.min(withinMs, settleMs))));
  }
  return wrong;
};

const looksAt = (arena: Arena, scene: Scene): ReadonlyArray<Look> =>
  CHECKS.map(([name, check, withinMs]) => [name, () => check(arena, scene), withinMs]);

/** Of a guest that was not moved: once every fault is over and every actor is up. Empty: nothing is wrong. */
export const judgeGuest = (arena: Arena, scene: Scene, patience: Patience = {}): Promise<ReadonlyArray<string>> =>
  lookAll(looksAt(arena, scene), patience);

/** Of one that was moved. */
export const judge = (arena: Arena, trial: Trial, patience: Patience = {}): Promise<ReadonlyArray<string>> =>
  lookAll(
    [
      ["ending", () => endedPlainly(trial), 0],
      ...looksAt(arena, sceneOf(trial)),
      ["same ending", () => sameEnding(arena, trial), SETTLE_MS],
    ],
    patience,
  );
