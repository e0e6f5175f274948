export * from "./builtin/index.ts";
export * from "./guest.ts";
export { type GuestLook, lookAt } from "./look.ts";
export type { MissingMemory, Touch } from "./missing-memory.ts";
export { openDestination, openGuest, openRegistered, type Receiving } from "./opening.ts";
export * from "./qemu/index.ts";
export { openRegistry, type Registry } from "./registry.ts";
export { type GuestWatch, watchGuest } from "./watch.ts";
