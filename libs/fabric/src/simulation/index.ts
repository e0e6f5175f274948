export type { SimCounters } from "./counters.ts";
export { type Faults, QUIET, type RegisterFaults, STORMY } from "./faults.ts";
export { SimNetwork, type SimReply, type SimStream } from "./network.ts";
export { type Random, seededRandom } from "./random.ts";
export type { SimCasOutcome, SimEntry, SimRead, SimRegister } from "./register.ts";
export type { Answer, Receive } from "./subscriptions.ts";
export { type SimOptions, SimWorld, type Trace } from "./world.ts";
