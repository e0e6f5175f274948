export * from "./dirty-tracker.ts";
export * from "./errors.ts";
export * from "./ram-block.ts";
