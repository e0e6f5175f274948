import { Fabric } from "@godwit/fabric";
import { SimFabric, simulate } from "@godwit/fabric/simulated";
import { SimNetwork } from "@godwit/fabric/simulation";
import { PROTOCOL, versionText } from "@godwit/protocol";
import * as Cause from "effect/Cause";
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Layer from "effect/Layer";
import * as References from "effect/References";
import { expect, it } from "vitest";
import { type WorkerNews, watchWorkers } from "./worker-watch.ts";

it("a worker that speaks another major version gets no work, one of another minor does", () => {
  const network = new SimNetwork({ seed: 1 });
  const join = (actor: string) =>
    Effect.map(Layer.build(SimFabric.layer(network, actor)), (context) => Context.get(context, Fabric));
  const heard: WorkerNews[] = [];
  const program = Effect.gen(function* () {
    const [sender, workers] = [yield* join("sender"), yield* join("workers")];
    yield* watchWorkers("a", (news) => Effect.sync(() => heard.push(news))).pipe(Effect.provideService(Fabric, sender));
    // As the fabric of another build beats.
    const beat = (id: string, protocol: string) =>
      workers.publish(
        `godwit.presence.member.multifd-worker.a.${id}`,
        new TextEncoder().encode(JSON.stringify({ state: "up", incarnation: `i${id}`, startedAtMs: 1, protocol })),
      );
    beat("0", versionText({ ...PROTOCOL, major: PROTOCOL.major + 1 }));
    beat("1", versionText({ ...PROTOCOL, minor: PROTOCOL.minor + 1 }));
    yield* workers.announce({ role: "multifd-worker", node: "a", id: "2", incarnation: "i2" });
    yield* Effect.sleep("500 millis");
  }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"));
  const exit = simulate(network, program);
  if (Exit.isFailure(exit)) throw Cause.squash(exit.cause);
  expect(heard).toEqual([
    { _tag: "WorkerUp", worker: "1" },
    { _tag: "WorkerUp", worker: "2" },
  ]);
});
