export * from "./builtin/index.ts";
export * from "./guest.ts";
