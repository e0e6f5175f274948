export * from "./errors.ts";
export * from "./fabric.ts";
