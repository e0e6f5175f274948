/** What several actors need for their jobs. */
import { accessSync, constants, mkdirSync } from "node:fs";
import { Fabric } from "@godwit/fabric";
import * as Effect from "effect/Effect";
import type { Need } from "./health.ts";

/** Both connections to NATS, to be asked for a round trip. */
export const natsNeeds: Effect.Effect<ReadonlyArray<Need>, never, Fabric> = Effect.map(Fabric, (fabric) => [
  { what: "NATS, control connection", look: fabric.roundTrip("control") },
  { what: "NATS, bulk connection", look: fabric.roundTrip("bulk") },
]);

/** Buckets whose leaders answer, and that are still configured so that no record is lost. */
export const bucketNeeds = (...names: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<Need>, never, Fabric> =>
  Effect.map(Fabric, (fabric) => names.map((name) => ({ what: `bucket ${name}`, look: fabric.bucket(name) })));

/** A folder that is there, or can be made, and in which this process may make and remove files. */
export const folderNeed = (path: string): Need => ({
  what: `folder ${path}`,
  look: Effect.try({
    try: () => {
      mkdirSync(path, { recursive: true, mode: 0o700 });
      accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK);
    },
    catch: (cause) => cause as Error,
  }),
});
