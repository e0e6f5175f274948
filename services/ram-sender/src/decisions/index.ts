export { type Recovery, recover, settled } from "./recovery.ts";
export { infoOf, reportOf } from "./report.ts";
export { beginSave, infoOfSave, makeSave, stepSave } from "./save.ts";
export type { Save, SaveEffect, SaveEvent, SaveStep } from "./save-state.ts";
export { guestBusy, type Routed, route, type Sender } from "./sender.ts";
export { reasonOfLoss } from "./serving.ts";
export { begin, step } from "./source.ts";
export type * from "./source-state.ts";
export { chooseTracker } from "./tracker-choice.ts";
