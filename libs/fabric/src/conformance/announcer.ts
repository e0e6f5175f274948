// A process of its own that announces the member it is given, until it is killed: node announcer.ts <server> <member as JSON>
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import { Fabric, type Member } from "../fabric.ts";
import { NatsFabric } from "../nats/nats-fabric.ts";

const [servers = "", memberJson = ""] = process.argv.slice(2);
const member: Member = JSON.parse(memberJson);

await Effect.runPromise(
  Effect.gen(function* () {
    const fabric = Context.get(yield* Layer.build(NatsFabric.layer({ servers, name: "announcer" })), Fabric);
    yield* fabric.announce(member);
    process.stdout.write("announced\n");
    return yield* Effect.never;
  }).pipe(Effect.scoped),
);
