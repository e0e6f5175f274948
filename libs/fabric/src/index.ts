export * from "./errors.ts";
export * from "./fabric.ts";
export { CONNECT_TIMEOUT_MS, type NatsOptions } from "./nats/connection.ts";
export { NatsFabric } from "./nats/nats-fabric.ts";
export { NATS_VERSION_MIN } from "./nats/version.ts";
export { letGo } from "./own-memory.ts";
export { isToken, matchesSubject } from "./subject.ts";
