/** What two hosts say to each other to agree on the key of an attempt (capability `encryption`); `libs/encryption` says how. */
import * as Schema from "effect/Schema";
import { Epoch, MigrationId, Name } from "./ids.ts";

/** A user JWT of NATS with a full table of permissions, characters. */
const JWT_CHARS_MAX = 16 * 1024;

const hex = (bytes: number) => Schema.String.check(Schema.isPattern(new RegExp(`^[0-9a-f]{${bytes * 2}}$`)));
const half = {
  /** X25519. */
  "public-key": hex(32),
  /** Of the NATS user that says it. */
  jwt: Schema.String.check(Schema.isMaxLength(JWT_CHARS_MAX)),
  /** ed25519, by that user's nkey. */
  signature: hex(64),
};

/** The loader of `destination` asks the RAM sender of the source. */
export const KeyRequest = Schema.Struct({ migration: MigrationId, epoch: Epoch, destination: Name, ...half });
export type KeyRequest = typeof KeyRequest.Type;
export const KeyAnswer = Schema.Struct(half);
export type KeyAnswer = typeof KeyAnswer.Type;

/** A receiver's count of packets that it did not open. */
export const RefusedPackets = Schema.Struct({
  /** They had come before. */
  replayed: Schema.Natural,
  /** The attempt's key had not sealed them, or not as they came. */
  forged: Schema.Natural,
});
export type RefusedPackets = typeof RefusedPackets.Type;

/** How a migration's packets are sealed, as `query-migrate` shows it. */
export const EncryptionInfo = Schema.Struct({
  cipher: Schema.Literal("aes-256-gcm"),
  "refused-packets": RefusedPackets,
});
export type EncryptionInfo = typeof EncryptionInfo.Type;
export const encryptionInfo = (refused: RefusedPackets): EncryptionInfo => ({
  cipher: "aes-256-gcm",
  "refused-packets": refused,
});
