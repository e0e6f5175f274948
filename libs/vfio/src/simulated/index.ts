export type { DmaDiagnosis } from "./dma-window.ts";
export * from "./in-process.ts";
export * from "./judge.ts";
export { DEVICE_PROGRAM, type StartedDevice, type StartOptions, startSimulated } from "./launch.ts";
export type { SimulatedDiagnosis, StateMark } from "./model.ts";
export * from "./open.ts";
export * from "./spec.ts";
