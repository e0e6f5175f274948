export * from "./device.ts";
export * from "./device-spec.ts";
export * from "./kernel-device/device.ts";
export * from "./kernel-device/probe.ts";
export * from "./opening.ts";
export * from "./simulated/index.ts";
export * from "./state-machine.ts";
export { DEVICE_TIMEOUT, openVfioUser, type VfioUserOptions, type VfioUserSpec } from "./vfio-user/device.ts";
