// The process of `startNodeApart`. Ends with its parent.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime";
import { openLocalCluster } from "@godwit/cli/local-cluster";
import * as Effect from "effect/Effect";
import * as References from "effect/References";
import type { NodeSettings } from "./node-apart.ts";

const { workers, ...settings } = JSON.parse(process.argv[2] ?? "null") as NodeSettings;
process.once("disconnect", () => process.kill(process.pid, "SIGTERM"));
const nodes = [{ name: "b", workers, guests: [] }];
const node = openLocalCluster({ ...settings, nodes, coordinators: 0 }).pipe(
  Effect.andThen(Effect.never),
  Effect.scoped,
  Effect.provideService(References.MinimumLogLevel, "Error"),
);
NodeRuntime.runMain(node as Effect.Effect<never, unknown>);
