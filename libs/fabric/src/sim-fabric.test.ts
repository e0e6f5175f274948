import * as Cause from "effect/Cause";
import * as Clock from "effect/Clock";
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Layer from "effect/Layer";
import type * as Scope from "effect/Scope";
import { describe, expect, it } from "vitest";
import { bytes, take, text } from "./conformance/messages.ts";
import { type FabricWorld, fabricConformance } from "./fabric.conformance.ts";
import { Fabric, type Member, SILENT_MS } from "./fabric.ts";
import { SimFabric } from "./sim-fabric.ts";
import { simulate } from "./simulate.ts";
import { SimNetwork, STORMY } from "./simulation/index.ts";

/** Not only for what it returns: a failure is thrown. */
function runSim<A, E>(network: SimNetwork, program: Effect.Effect<A, E, Scope.Scope>): A {
  const exit = simulate(network, Effect.scoped(program));
  if (Exit.isSuccess(exit)) return exit.value;
  throw Cause.squash(exit.cause);
}

const joinSim = (network: SimNetwork, actor: string) =>
  Effect.map(Layer.build(SimFabric.layer(network, actor)), (context) => Context.get(context, Fabric));

function openWorld(seed: number): FabricWorld {
  const network = new SimNetwork({ seed });
  let actors = 0;
  return {
    run: async (program) => runSim(network, program),
    join: (actor) => joinSim(network, `${actor}-${++actors}`),
    announceElsewhere: Effect.fnUntraced(function* (member: Member) {
      const actor = `process-${++actors}`;
      const fabric = yield* joinSim(network, actor);
      yield* fabric.announce(member);
      return {
        crash: Effect.sync(() => network.crash(actor)),
        pause: Effect.sync(() => network.pause(actor)),
        resume: Effect.sync(() => network.resume(actor)),
      };
    }),
    slackMs: 0,
    close: async () => {},
  };
}

for (const seed of [1, 2, 3]) fabricConformance(`a simulated network, seed ${seed}`, async () => openWorld(seed));

describe("programs in simulated time", () => {
  it("an hour of sleep passes at once, and equal seeds give identical traces of whole shells", () => {
    const traceOf = (seed: number) => {
      const trace: Array<string> = [];
      const network = new SimNetwork({ seed, faults: STORMY, trace: (...happened) => trace.push(happened.join(" ")) });
      runSim(
        network,
        Effect.gen(function* () {
          const [alice, bob] = [yield* joinSim(network, "alice"), yield* joinSim(network, "bob")];
          const handle = (data: Uint8Array) => Effect.delay(Effect.succeed(data), "1 millis");
          yield* alice.serve({
            name: "echo",
            version: "1.0.0",
            description: "",
            endpoints: [{ name: "echo", subject: "echo", handle }],
          });
          const bucket = yield* bob.bucket("own");
          for (let i = 0; i < 50; i++) {
            yield* Effect.ignore(bob.request("echo", bytes("x"), { timeoutMs: 20 }));
            yield* bucket.compareAndSet("key", bytes(String(i)), i);
          }
          yield* Effect.sleep("59 minutes");
          expect(yield* Clock.currentTimeMillis).toBeGreaterThan(59 * 60_000);
        }),
      );
      return trace;
    };
    const first = traceOf(5);
    expect(first.length).toBeGreaterThan(100);
    expect(traceOf(5)).toEqual(first);
    expect(traceOf(6)).not.toEqual(first);
  });

  it("a crashed actor's fabric is not heard any more, not even when the actor lives again", () => {
    const network = new SimNetwork({ seed: 1 });
    runSim(
      network,
      Effect.gen(function* () {
        const listener = yield* joinSim(network, "listener");
        const heard = yield* listener.subscribe("words", { capacity: 8 });
        const zombie = yield* joinSim(network, "actor");
        const bucket = yield* zombie.bucket("own");
        network.crash("actor");
        const reborn = yield* joinSim(network, "actor");
        expect(zombie.publish("words", bytes("of the dead"))).toBe(false);
        const write = yield* Effect.forkChild(bucket.compareAndSet("vm1", bytes("dead"), 0), {
          startImmediately: true,
        });
        reborn.publish("words", bytes("of the living"));
        expect(text((yield* take(heard, 1))[0]?.data ?? bytes(""))).toBe("of the living");
        yield* Effect.sleep("10 seconds");
        expect(yield* (yield* reborn.bucket("own")).get("vm1")).toBeNull();
        yield* Fiber.interrupt(write);
      }),
    );
  });

  it("an actor without a link is told, drops what it publishes, and takes nobody for dead", () => {
    const network = new SimNetwork({ seed: 1 });
    runSim(
      network,
      Effect.gen(function* () {
        const [alice, bob] = [yield* joinSim(network, "alice"), yield* joinSim(network, "bob")];
        const member: Member = { role: "loader", node: "a", id: "l1", incarnation: "i1" };
        yield* bob.announce(member);
        const news = yield* alice.watch({});
        const link = yield* alice.link;
        expect(yield* news.takeAll).toMatchObject([{ _tag: "Up", member }]);
        network.disconnect("alice", 10 * SILENT_MS);
        expect((yield* link.takeAll).map((event) => event._tag)).toContain("Disconnected");
        expect(alice.publish("s", bytes(""))).toBe(false);
        expect((yield* link.takeAll).map((event) => event._tag)).toContain("Reconnected");
        const wrong = yield* news.takeAll.pipe(Effect.timeoutOption(10 * SILENT_MS));
        expect(wrong._tag).toBe("None");
      }),
    );
  });

  it("sleeps of a paused actor end when it resumes", () => {
    const network = new SimNetwork({ seed: 1 });
    runSim(
      network,
      Effect.gen(function* () {
        const layer = SimFabric.layer(network, "actor");
        const sleeper = yield* Effect.sleep("10 millis").pipe(
          Effect.andThen(Clock.currentTimeMillis),
          Effect.provide(layer),
          Effect.forkChild({ startImmediately: true }),
        );
        network.pause("actor", 500);
        expect(yield* Fiber.join(sleeper)).toBe(500);
      }),
    );
  });

  it("a program that can never go on is an error, not a hang", () => {
    expect(() => simulate(new SimNetwork({ seed: 1 }), Effect.never)).toThrow("nothing can happen any more");
  });
});
