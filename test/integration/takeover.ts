/** Which coordinator owns a migration, and what happens when it is killed or stopped at a chosen moment. */
import { Fabric } from "@godwit/fabric";
import {
  DestinationCommand,
  DestinationReport,
  isMalformed,
  json,
  MIGRATIONS_BUCKET,
  SourceCommand,
  SourceReport,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { childKey } from "../../services/cli/src/local-cluster.ts";
import type { Overheard, Stranger } from "./stranger.ts";
import { type ActorName, coordinatorOf, eventually, type World } from "./world.ts";

export const REPLICAS = 2;
/** What a take-over may take, ms. */
export const TAKEN_OVER_WITHIN_MS = 3000;
/** Everything that says who speaks for a migration: commands and reports carry its term. */
export const SPOKEN = ["godwit.node.*.source", "godwit.node.*.destination", "godwit.m.*.*.*.report.*"] as const;

const codecs = {
  "node.source": json(SourceCommand),
  "node.destination": json(DestinationCommand),
  "report.source": json(SourceReport),
  "report.destination": json(DestinationReport),
} as const;

export interface Word {
  readonly what: keyof typeof codecs;
  /** A command's name, or the phase that a report shows. */
  readonly name: string;
  readonly migration: string;
  readonly term: number;
  readonly at: number;
}

/** A command or a report; null: something else. */
export const wordOf = ({ subject, data }: Overheard): Word | null => {
  const what = subject
    .replace(/^godwit\.node\.[^.]+\.(source|destination)$/, "node.$1")
    .replace(/^godwit\.m\.[^.]+\.[^.]+\.[^.]+\.report\.(source|destination)$/, "report.$1");
  if (!(what in codecs)) return null;
  const said = codecs[what as Word["what"]].decode(data);
  if (isMalformed(said)) return null;
  const name = "_tag" in said ? said._tag : said.phase;
  return { what: what as Word["what"], name, migration: said.migration, term: said.term, at: performance.now() };
};

/** The first word from now on for which it holds. */
export const firstWord = (strangers: ReadonlyArray<Stranger>, holds: (word: Word) => boolean, act = (): void => {}) =>
  new Promise<Word>((resolve) => {
    let done = false;
    for (const stranger of strangers) {
      stranger.onMessage((message) => {
        const word = done ? null : wordOf(message);
        if (word === null || !holds(word)) return;
        done = true;
        act();
        resolve(word);
      });
    }
  });

export interface Tenure {
  readonly replica: number;
  readonly incarnation: string;
  readonly term: number;
  readonly status: string;
}

const Stored = Schema.fromJsonString(
  Schema.Struct({
    owner: Schema.String,
    term: Schema.Number,
    info: Schema.Struct({ status: Schema.String }),
  }),
);

const incarnationOf = (world: World, replica: number): string | undefined =>
  world.cluster.children.get(childKey(...coordinatorOf(replica)))?.member.incarnation;

/** What the migrations bucket says. */
export const tenureOf = (world: World, migration: string): Promise<Tenure> =>
  world.run(
    Effect.gen(function* () {
      const fabric = yield* Fabric;
      const bucket = yield* fabric.bucket(MIGRATIONS_BUCKET);
      const entry = yield* bucket.get(migration);
      if (entry === null) return yield* Effect.fail(new Error(`migration ${migration} is not stored`));
      const { owner, term, info } = yield* Schema.decodeUnknownEffect(Stored)(new TextDecoder().decode(entry.value));
      const replica = Array.from({ length: REPLICAS }, (_, index) => index).find(
        (index) => incarnationOf(world, index) === owner,
      );
      return { replica: replica ?? -1, incarnation: owner, term, status: info.status };
    }),
  );

const signalAll = (world: World, signal: "SIGSTOP" | "SIGCONT", but?: number): void => {
  for (let replica = 0; replica < REPLICAS; replica++)
    if (replica !== but) process.kill(world.pidOf(coordinatorOf(replica)), signal);
};

/** Both coordinators stand still from this very instant, so that whoever is the owner can be found without losing the moment. */
export const freeze = (world: World): void => signalAll(world, "SIGSTOP");

export interface Fallen extends Tenure {
  readonly actor: ActorName;
  readonly pid: number;
  /** When the other one went on alone. */
  readonly at: number;
  /** The first word under a higher term, and how long after it came, ms; null: the migration had ended by then. */
  readonly successor: Promise<{ readonly word: Word; readonly afterMs: number } | null>;
}

/** Kills the owner of a migration, or leaves it stopped; the other coordinator goes on. `freeze` came before. */
export const fell = async (
  world: World,
  strangers: ReadonlyArray<Stranger>,
  migration: string,
  how: "SIGKILL" | "SIGSTOP",
): Promise<Fallen> => {
  const tenure = await tenureOf(world, migration);
  const actor = coordinatorOf(tenure.replica);
  const pid = world.pidOf(actor);
  const taken = firstWord(strangers, (word) => word.migration === migration && word.term > tenure.term);
  if (how === "SIGKILL") process.kill(pid, "SIGKILL");
  signalAll(world, "SIGCONT", tenure.replica);
  const at = performance.now();
  const successor = Promise.race([
    taken.then((word) => ({ word, afterMs: word.at - at })),
    endedWithout(world, migration, tenure),
  ]);
  return { ...tenure, actor, pid, at, successor };
};

/** Resolves when the migration has ended under this very term: then nobody had to take it over. */
const endedWithout = async (world: World, migration: string, { term }: Tenure): Promise<null> => {
  const isOver = async (): Promise<boolean> => {
    const now = await tenureOf(world, migration);
    return now.term > term || ["completed", "failed", "cancelled"].includes(now.status);
  };
  await eventually("the migration is taken over, or has ended", isOver);
  if ((await tenureOf(world, migration)).term === term) return null;
  return new Promise(() => {});
};
