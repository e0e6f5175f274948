/** The guest as both hosts have it, looked at through its own monitors: actors are not asked how it is. */
import { basename, join } from "node:path";
import {
  awaitVerified,
  type BuiltinSpec,
  checkMemory,
  openGuest,
  openRegistry,
  type RunState,
  readStats,
} from "@godwit/guest";
import * as Effect from "effect/Effect";

export const HOSTS = ["a", "b"] as const;
export type Host = (typeof HOSTS)[number];

/** Where this container has the volumes of a host. */
export const runtimeOf = (host: Host): string => `/hosts/${host}/runtime`;
const memoryOf = (host: Host): string => `/hosts/${host}/memory`;

/** A copy that there is a note of; its monitor as it can be reached from here. */
export interface Copy {
  readonly host: Host;
  readonly spec: BuiltinSpec;
}

export const copiesOf = (guest: string): ReadonlyArray<Copy> =>
  HOSTS.flatMap((host) => {
    const spec = openRegistry(runtimeOf(host)).find(guest);
    return spec?.driver === "builtin"
      ? [{ host, spec: { ...spec, socket: join(memoryOf(host), basename(spec.socket)) } }]
      : [];
  });

const stateOf = ({ spec }: Copy): Effect.Effect<RunState | "gone"> =>
  Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.describe)).pipe(
    Effect.map(({ runState }) => runState),
    Effect.catch(() => Effect.succeed("gone" as const)),
  );

const running = (copies: ReadonlyArray<Copy>): Effect.Effect<ReadonlyArray<Copy>> =>
  Effect.map(Effect.forEach(copies, stateOf, { concurrency: "unbounded" }), (states) =>
    copies.filter((_, at) => states[at] === "running"),
  );

/**
 * The copies that run. Answers come one after the other: the first look may see the source before the hand-over and the destination after it.
 * So two count as two only when both still run at a second look; within one hand-over nothing goes back.
 */
export const runningCopies = (guest: string): Effect.Effect<ReadonlyArray<Copy>> =>
  Effect.suspend(() => running(copiesOf(guest))).pipe(
    Effect.flatMap((first) => (first.length < 2 ? Effect.succeed(first) : running(first))),
  );

/** How long a guest may take to check itself, ms: a GiB takes 0.3 s, on a busy machine several. */
const CHECK_MS = 60_000;

/** What is wrong with the memory of a copy that runs, and with its running; the guest stands still for a part of it, and goes on. */
export const complaintsOf = ({ spec, host }: Copy): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function* () {
    const swept = yield* awaitVerified(spec).pipe(
      // A guest that was started here has not been loaded, and so not swept.
      Effect.catchIf(
        ({ code }) => code === "wrong-state",
        () => Effect.succeed(null),
      ),
    );
    const before = yield* readStats(spec);
    const checked = yield* Effect.scoped(
      Effect.gen(function* () {
        const guest = yield* openGuest(spec);
        yield* guest.pause;
        return yield* Effect.ensuring(checkMemory(spec), Effect.ignore(guest.resume));
      }),
    );
    yield* Effect.repeat(readStats(spec), { until: ({ pagesWritten }) => pagesWritten > before.pagesWritten });
    return [swept, checked].flatMap((found) =>
      found === null || (found.badCount === 0 && found.pagesChecked === found.pagesTotal)
        ? []
        : [`memory at host ${host} is wrong: ${JSON.stringify(found)}`],
    );
  }).pipe(
    Effect.timeout(CHECK_MS),
    Effect.catch((error) => Effect.succeed([`the guest at host ${host} cannot check itself: ${error.message}`])),
  );
