export * from "./boot-guest.ts";
export * from "./boot-ledger.ts";
export * from "./boot-sector.ts";
export { QemuDriver } from "./driver.ts";
export { launchQemu, type QemuSpec, qemuLogPath } from "./launch.ts";
