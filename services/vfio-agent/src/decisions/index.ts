export { type Known, type Routed, route } from "./agent.ts";
export { makeLoading, step as stepLoading } from "./loading.ts";
export type * from "./loading-state.ts";
export { loadReportOf, saveReportOf } from "./report.ts";
export { makeSaving, step as stepSaving } from "./saving.ts";
export { windowBytes } from "./saving-device.ts";
export type { DeviceOp, Saving, SavingDevice, SavingEffect, SavingEvent } from "./saving-state.ts";
