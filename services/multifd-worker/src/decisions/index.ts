export * as Lane from "./lane.ts";
