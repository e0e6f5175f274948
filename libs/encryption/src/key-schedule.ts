/**
 * From the secret that two hosts agree on to the keys that packets are sealed with.
 *
 *     X25519 secret --HKDF-SHA256(info: who, which attempt, both public keys)--> attempt key
 *     attempt key   --HKDF-SHA256(salt of a worker's life, info: purpose)-----> subkey, with a counter of its own for nonces
 *
 * An attempt key seals nothing itself. Every life of a worker draws a salt of its own, so two lives never share a subkey, and the
 * counters of both may begin at 1.
 */
import { hkdfSync } from "node:crypto";

/** Of AES-256. */
export const KEY_BYTES = 32;
/** Two of 2^40 lives draw the same one with a chance of 2^-49. */
export const SALT_BYTES = 16;

/** What the packets hold, and so who opens them: the loader guest memory and the guest's own device state, the VFIO agent that of devices. Each has subkeys of its own. */
export const PURPOSES = ["ram", "devices"] as const;
export type Purpose = (typeof PURPOSES)[number];

/** An attempt to move a guest, and between which nodes. */
export interface Attempt {
  readonly migration: string;
  readonly epoch: number;
  readonly source: string;
  readonly destination: string;
}

const derive = (secret: Uint8Array, salt: Uint8Array, info: ReadonlyArray<string>): Uint8Array =>
  new Uint8Array(hkdfSync("sha256", secret, salt, info.join("\n"), KEY_BYTES));

const NO_SALT = new Uint8Array(0);

/** Public keys as they travel, in hex. No field may hold a line break; names and hex never do. */
export const attemptKey = (
  secret: Uint8Array,
  { migration, epoch, source, destination }: Attempt,
  publicKeys: { readonly source: string; readonly destination: string },
): Uint8Array =>
  derive(secret, NO_SALT, [
    "godwit attempt key 1",
    migration,
    String(epoch),
    source,
    destination,
    publicKeys.source,
    publicKeys.destination,
  ]);

export const subkey = (key: Uint8Array, salt: Uint8Array, purpose: Purpose): Uint8Array =>
  derive(key, salt, ["godwit packets 1", purpose]);
