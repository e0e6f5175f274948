export * from "./guest.ts";
