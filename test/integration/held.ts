/** Migrations that go on until they are told to end: what a test does to one must not race against its completion. */
import { setParameters } from "../../services/cli/src/client.ts";
import type { Journey } from "./journey.ts";
import { MIB, type World } from "./world.ts";

/** A downtime that no switchover can keep, so passes follow one another; the first takes seconds. */
export const HELD = { "downtime-limit": 1, "max-bandwidth": 8 * MIB };

/** Lifts both limits: the rest need not take long. */
export const letGo = (world: World, journey: Journey): Promise<unknown> =>
  world.run(setParameters({ migration: journey.id, parameters: { "downtime-limit": 300, "max-bandwidth": 0 } }));
