/** The processes that take part in a migration, by the names of a table. */
import * as Effect from "effect/Effect";
import { childRunning, cpuSeconds } from "./process-usage.ts";
import { type NodeName, otherNode, type Testbed } from "./testbed.ts";

export interface Actor {
  readonly name: string;
  readonly pids: ReadonlyArray<number>;
}

/** Those that have work when a guest leaves `source`. */
export const actorsOf = (testbed: Testbed, source: NodeName, workers: number): ReadonlyArray<Actor> => {
  const { pidOf } = testbed;
  return [
    { name: "RAM sender", pids: [pidOf("ram-sender", source, "0")] },
    {
      name: `multifd workers (${workers})`,
      pids: Array.from({ length: workers }, (_, id) => pidOf("multifd-worker", source, String(id))),
    },
    { name: "loader", pids: [pidOf("loader", otherNode(source), "0")] },
    { name: "coordinator", pids: [pidOf("coordinator", "up", "0")] },
    { name: "nats-server", pids: [childRunning("nats-server")] },
  ];
};

/** What comes of `work`, and the CPU seconds of each actor while it runs. */
export const spentBy = <A, E>(
  actors: ReadonlyArray<Actor>,
  work: Effect.Effect<A, E>,
): Effect.Effect<{ readonly result: A; readonly seconds: ReadonlyArray<number> }, E> =>
  Effect.gen(function* () {
    const read = () => actors.map(({ pids }) => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0));
    const before = read();
    const result = yield* work;
    return { result, seconds: read().map((after, at) => after - before[at]!) };
  });
