export * from "./agreement.ts";
export * from "./identity.ts";
export * from "./key-schedule.ts";
export * from "./opening.ts";
export { SEALED_HEADER_BYTES, SEALING_BYTES } from "./sealed-packet.ts";
export * from "./sealer.ts";
export * from "./sealing-file.ts";
