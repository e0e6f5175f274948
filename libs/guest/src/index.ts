export * from "./builtin/index.ts";
export * from "./guest.ts";
export * from "./qemu/index.ts";
