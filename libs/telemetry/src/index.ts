export { logFailure, withChannel, withEpoch, withGuest, withMigration } from "./annotations.ts";
export { LEVELS, type Level } from "./level.ts";
export { type Destination, type Format, type LogOptions, layer } from "./log.ts";
