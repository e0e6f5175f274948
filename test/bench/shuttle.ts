/** A guest that goes to and fro between the two nodes: each move is a sample. */
import { type BuiltinOptions, startBuiltin } from "@godwit/guest";
import type { MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { actorsOf, spentBy } from "./actors.ts";
import { type FirstPass, watchFirstPass } from "./first-pass.ts";
import { claimFreeMemory } from "./free-memory.ts";
import { type NodeName, otherNode, type Testbed, UNCOMPARED } from "./testbed.ts";

/** Pages that nothing makes smaller. */
export const RANDOM = { zero: 0, compressible: 0, random: 100 } as const;

export interface Move {
  readonly info: MigrationInfo;
  /** CPU seconds of those that have work in it, from the request to the end; the guest's check comes after it. */
  readonly cpu: ReadonlyArray<{ readonly name: string; readonly seconds: number }>;
}

export interface Shuttle {
  /** Moves the guest to the other node, and lets it check its memory there. Default: without `verify`. */
  readonly move: (
    parameters: Readonly<Record<string, unknown>>,
    capabilities?: Readonly<Record<string, boolean>>,
  ) => Effect.Effect<Move, unknown>;
  /** The same, with the first pass as NATS has seen it. Fails when that did not have all of memory: no page may be zero. */
  readonly pass: (...asked: Parameters<Shuttle["move"]>) => Effect.Effect<Move & FirstPass, unknown>;
}

/** Starts it at node a. `workers`: of each node. It writes nothing. */
export const openShuttle = Effect.fnUntraced(function* (
  testbed: Testbed,
  options: Required<Pick<BuiltinOptions, "name" | "memoryBytes" | "mix">> & { readonly workers: number },
): Effect.fn.Return<Shuttle, unknown, Scope.Scope> {
  const { name, memoryBytes, mix, workers } = options;
  const directory = `${testbed.memoryDirectory}/a`;
  testbed.register("a", yield* startBuiltin({ name, memoryBytes, mix, dirtyRateBytesPerSecond: 0, directory }));
  let at: NodeName = "a";

  const move: Shuttle["move"] = Effect.fnUntraced(function* (parameters, capabilities = UNCOMPARED) {
    const actors = actorsOf(testbed, at, workers);
    at = otherNode(at);
    claimFreeMemory(testbed.memoryDirectory, memoryBytes);
    const { seconds, result } = yield* spentBy(
      actors,
      testbed.move(name, at, parameters, undefined, "unverified", capabilities),
    );
    yield* testbed.verified(name, at);
    return { info: result, cpu: actors.map((actor, index) => ({ name: actor.name, seconds: seconds[index]! })) };
  });
  const pass: Shuttle["pass"] = Effect.fnUntraced(function* (...asked) {
    const watched = yield* watchFirstPass(testbed.fabric);
    const moved = yield* move(...asked);
    const seen = yield* watched;
    if (seen.bytes < memoryBytes)
      return yield* Effect.fail(new Error(`the first pass had ${seen.bytes} bytes: not all of memory`));
    return { ...moved, ...seen };
  }, Effect.scoped);
  return { move, pass };
});

/** Who reads, packs, opens and writes: CPU seconds of the workers and the loader. */
export const carriersOf = ({ cpu }: Move): number =>
  cpu.reduce((sum, { name, seconds }) => sum + (/worker|loader/.test(name) ? seconds : 0), 0);
