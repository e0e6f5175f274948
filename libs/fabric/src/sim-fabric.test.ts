import * as Cause from "effect/Cause";
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Layer from "effect/Layer";
import { describe, expect, it } from "vitest";
import { type FabricWorld, fabricConformance } from "./fabric.conformance.ts";
import { Fabric, type Member } from "./fabric.ts";
import { SimFabric } from "./sim-fabric.ts";
import { simulate } from "./simulate.ts";
import { SimNetwork } from "./simulation/index.ts";

function openWorld(seed: number): FabricWorld {
  const network = new SimNetwork({ seed });
  let actors = 0;
  const joinAs = (actor: string) =>
    Effect.map(Layer.build(SimFabric.layer(network, actor)), (context) => Context.get(context, Fabric));
  return {
    run: async (program) => {
      const exit = simulate(network, Effect.scoped(program));
      if (Exit.isSuccess(exit)) return exit.value;
      throw Cause.squash(exit.cause);
    },
    join: (actor) => joinAs(`${actor}-${++actors}`),
    announceElsewhere: Effect.fnUntraced(function* (member: Member) {
      const actor = `process-${++actors}`;
      const fabric = yield* joinAs(actor);
      yield* fabric.announce(member);
      return {
        crash: Effect.sync(() => network.crash(actor)),
        pause: Effect.sync(() => network.pause(actor)),
        resume: Effect.sync(() => network.resume(actor)),
      };
    }),
    close: async () => {},
  };
}

for (const seed of [1, 2, 3]) fabricConformance(`a simulated network, seed ${seed}`, async () => openWorld(seed));
