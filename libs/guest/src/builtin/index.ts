export type { BuiltinDevice } from "./devices.ts";
export * from "./driver.ts";
export { type BuiltinOptions, type BuiltinSpec, GUEST_PROGRAM, startBuiltin, startBuiltinIncoming } from "./launch.ts";
