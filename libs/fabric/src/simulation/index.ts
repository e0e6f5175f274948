export { type Faults, QUIET, type RegisterFaults, STORMY } from "./faults.ts";
export { type SimCounters, SimNetwork, type SimOptions, type SimReply, type Trace } from "./network.ts";
export { type Random, seededRandom } from "./random.ts";
export type { SimCasOutcome, SimEntry, SimRead, SimRegister } from "./register.ts";
export type { Answer, Receive } from "./subscriptions.ts";
