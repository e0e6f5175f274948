export * as Bitmap from "./bitmap.ts";
export * from "./dirty-tracker.ts";
export * from "./errors.ts";
export * from "./kernel/digest.ts";
export * from "./kernel/zero-page.ts";
export * from "./ram-block.ts";
export * from "./ram-file.ts";
export * from "./trackers/tracker.ts";
