/** Seals packets with nonces that cannot come twice: one sealer for each place that sends, for one life. */
import { randomFillSync } from "node:crypto";
import { type Purpose, SALT_BYTES, subkey } from "./key-schedule.ts";
import { PACKETS_PER_SUBKEY_MAX, sealInto } from "./sealed-packet.ts";

/** Attempts that are sent for side by side; one more is as good as new: it draws another salt. */
const SUBKEYS_MAX = 64;

export interface SealedFor {
  readonly migration: string;
  readonly epoch: number;
  readonly purpose: Purpose;
}

export interface Sealer {
  /** Seals, in its place, the packet that stands in `room` behind SEALED_HEADER_BYTES; `key`: the attempt's. Returns the bytes to send. */
  readonly seal: (room: Uint8Array, packetBytes: number, to: SealedFor, key: Uint8Array) => Uint8Array;
}

const drawSaltAtRandom = (): Uint8Array => randomFillSync(new Uint8Array(SALT_BYTES));

/** The options are for tests: salts must never come twice, and no subkey may seal more than PACKETS_PER_SUBKEY_MAX packets. */
export const makeSealer = ({
  drawSalt = drawSaltAtRandom,
  packetsPerSubkeyMax = PACKETS_PER_SUBKEY_MAX,
} = {}): Sealer => {
  const open = new Map<string, { readonly key: Uint8Array; readonly salt: Uint8Array; counter: number }>();
  const subkeyFor = ({ migration, epoch, purpose }: SealedFor, key: Uint8Array) => {
    const name = `${migration}-${epoch}-${purpose}`;
    const known = open.get(name);
    if (known !== undefined && known.counter < packetsPerSubkeyMax) return known;
    if (known === undefined && open.size >= SUBKEYS_MAX)
      for (const oldest of [...open.keys()].slice(0, 1)) open.delete(oldest);
    const salt = drawSalt();
    const fresh = { key: subkey(key, salt, purpose), salt, counter: 0 };
    open.set(name, fresh);
    return fresh;
  };
  return {
    seal: (room, packetBytes, to, key) => {
      const current = subkeyFor(to, key);
      current.counter++;
      return sealInto(room, packetBytes, { ...to, salt: current.salt, counter: current.counter }, current.key);
    },
  };
};
