export * from "./errors.ts";
export * from "./fabric.ts";
export { type Mismatch, mismatchText } from "./nats/bucket-configuration.ts";
export {
  type BucketCopy,
  type BucketReading,
  type BucketSetup,
  readBuckets,
  setUpBuckets,
} from "./nats/bucket-setup.ts";
export { CONNECT_TIMEOUT_MS, type NatsOptions, type NatsTls } from "./nats/connection.ts";
export { credentialsFile } from "./nats/credentials.ts";
export { NatsFabric } from "./nats/nats-fabric.ts";
export { type ObjectStore, openObjectStore, type StoredObject, setUpObjectStore } from "./nats/object-store.ts";
export { isSupportedVersion, NATS_VERSION_MIN } from "./nats/version.ts";
export { letGo, ownMemory } from "./own-memory.ts";
export { isToken, matchesSubject } from "./subject.ts";
