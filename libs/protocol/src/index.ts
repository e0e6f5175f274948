export * from "./error.ts";
