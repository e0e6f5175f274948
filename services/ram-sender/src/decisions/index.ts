export type { Item, Work } from "./ledger.ts";
export { type Recovery, recover, settled } from "./recovery.ts";
export { infoOf, reportOf } from "./report.ts";
export { type Routed, route, type Sender } from "./sender.ts";
export { begin, step } from "./source.ts";
export type * from "./source-state.ts";
