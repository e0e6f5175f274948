/**
 * The direct lane: a connection of a multifd worker's own to the destination, for the packets that else are messages on NATS. Who may open
 * one is settled on NATS, where the worker's node was checked; control, credits and acknowledgements stay there.
 *
 *     worker                                            destination (loader, or VFIO agent)
 *       |-- LaneRequest, on the migration's own subject -->|  has this attempt?
 *       |<-- LaneOffer: where, and a token for one use -----|
 *       |== connects =====================================>|
 *       |-- hello: which token, and proof of its secret -->|  that token, not used, not old; else it closes without a byte
 *       |<-- welcome: proof of the secret, too -------------|
 *       |== u32 length, packet; u32 length, packet ... ===>|
 *       |<== u32 packets taken so far ======================|  that the way is whole; says nothing of what was applied
 *
 * The worker's proof keeps strangers out; the destination's keeps a guest's memory from whoever else may listen at an address that was
 * offered (every host has a 172.17.0.1). The secret itself is never said on the connection.
 *
 *      hello:  0 u32 magic "GWL1"   4 u8 version   5 u8 purpose (1 ram, 2 devices, 3 urgent)   6 u16 channel
 *              8 u64 migration     16 u32 epoch   20 u32 zero   24 u64 token   32 32 bytes proof
 */
import * as Schema from "effect/Schema";
import { Epoch, MigrationId } from "./ids.ts";
import { CHANNELS_MAX, PACKET_PAGES_MAX, SEAL_ROOM_BYTES, SLICE_BYTES_MAX } from "./limits.ts";
import { type Malformed, payloadOffset, readId, writeId } from "./packet.ts";
import { PROTOCOL, versionRefusal } from "./version.ts";

/** How a channel's packets travel. */
export const LANES = ["nats", "direct"] as const;
export type Lane = (typeof LANES)[number];

/** Whose packets a connection carries: pages, state of VFIO devices, pages that a guest waits for. Bulk must never be before the last. */
export const LANE_PURPOSES = ["ram", "devices", "urgent"] as const;
export type LanePurpose = (typeof LANE_PURPOSES)[number];

/** Places that one offer names: a host has a few networks, and a worker tries each for a while. */
export const LANE_ADDRESSES_MAX = 16;
/** The longest packet, sealed. A longer frame is no packet, and ends the connection. */
export const LANE_FRAME_BYTES_MAX =
  payloadOffset(PACKET_PAGES_MAX, PACKET_PAGES_MAX) + SLICE_BYTES_MAX + SEAL_ROOM_BYTES;
export const LANE_LENGTH_BYTES = 4;
export const LANE_RECEIPT_BYTES = 4;
export const LANE_HELLO_BYTES = 64;
/** What of a hello is proved. */
export const LANE_CLAIM_BYTES = 32;
export const LANE_PROOF_BYTES = 32;
export const LANE_SECRET_BYTES = 32;

const hex = (bytes: number) => Schema.String.check(Schema.isPattern(new RegExp(`^[0-9a-f]{${2 * bytes}}$`)));

/** Asks for a connection; the subject says between which nodes. */
export const LaneRequest = Schema.Struct({
  migration: MigrationId,
  epoch: Epoch,
  channel: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: CHANNELS_MAX - 1 })),
  purpose: Schema.Literals(LANE_PURPOSES),
  /** Which network stack the worker has (`networkId` of libs/fabric): one and the same is reached by loopback. */
  network: Schema.String.check(Schema.isMaxLength(64)),
});
export type LaneRequest = typeof LaneRequest.Type;

export const LaneOffer = Schema.Struct({
  /** HOST:PORT each, the likeliest first. */
  addresses: Schema.Array(Schema.String.check(Schema.isMaxLength(260))).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(LANE_ADDRESSES_MAX),
  ),
  /** TLS, with the secret as its pre-shared key. */
  tls: Schema.Boolean,
  token: hex(8),
  secret: hex(LANE_SECRET_BYTES),
});
export type LaneOffer = typeof LaneOffer.Type;

/** How the packets of one channel came to the destination, since its actor took up the attempt. */
export const LaneCount = Schema.Struct({
  purpose: Schema.Literals(LANE_PURPOSES),
  /** Of the newest packet. */
  lane: Schema.Literals(LANES),
  /** Packets by each. */
  nats: Schema.Natural,
  direct: Schema.Natural,
});
export type LaneCount = typeof LaneCount.Type;
export const LaneInfo = Schema.Struct({ channel: Schema.Natural, ...LaneCount.fields });
export type LaneInfo = typeof LaneInfo.Type;

/** What a hello claims. */
export interface LaneClaim {
  readonly migration: string;
  readonly epoch: number;
  readonly purpose: LanePurpose;
  readonly channel: number;
  readonly token: string;
}
export interface LaneHello extends LaneClaim {
  readonly proof: Uint8Array;
}

const MAGIC = 0x314c5747;

/** A hello whose proof is still missing: it belongs at LANE_CLAIM_BYTES. */
export const encodeHello = (claim: LaneClaim): Uint8Array => {
  const bytes = new Uint8Array(LANE_HELLO_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, PROTOCOL.major);
  view.setUint8(5, LANE_PURPOSES.indexOf(claim.purpose) + 1);
  view.setUint16(6, claim.channel, true);
  writeId(view, 8, claim.migration);
  view.setUint32(16, claim.epoch, true);
  writeId(view, 24, claim.token);
  return bytes;
};

const malformed = (reason: string): Malformed => ({ kind: "malformed", reason });

/** Reads a hello; never throws, and says nothing about whether it is true. */
export const decodeHello = (bytes: Uint8Array): LaneHello | Malformed => {
  if (bytes.length !== LANE_HELLO_BYTES) return malformed(`${bytes.length} bytes are no hello`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC) return malformed("wrong magic");
  const otherVersion = versionRefusal("its sender", { major: view.getUint8(4) });
  if (otherVersion !== null) return malformed(otherVersion);
  const purpose = LANE_PURPOSES[view.getUint8(5) - 1];
  const channel = view.getUint16(6, true);
  const epoch = view.getUint32(16, true);
  if (purpose === undefined) return malformed(`unknown purpose ${view.getUint8(5)}`);
  if (channel >= CHANNELS_MAX) return malformed(`channel ${channel}`);
  if (epoch === 0) return malformed("epoch 0");
  if (view.getUint32(20, true) !== 0) return malformed("reserved bits are set");
  const proof = bytes.slice(LANE_CLAIM_BYTES, LANE_HELLO_BYTES);
  return { migration: readId(view, 8), epoch, purpose, channel, token: readId(view, 24), proof };
};
