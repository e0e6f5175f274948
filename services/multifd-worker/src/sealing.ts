/** The last step of a packet at its source: sealed, where the RAM sender of this host says that the attempt's packets are. */
import {
  makeSealer,
  type Purpose,
  readSealing,
  SEALED_HEADER_BYTES,
  SEALING_BYTES,
  type Sealing,
  sourceSealing,
} from "@godwit/encryption";
import { isOfDevice, type WorkItem } from "@godwit/protocol";
import { PACKET_BYTES_MAX, type Packer } from "./packing.ts";

/** Room for the largest packet, sealed. */
export const ROOM_BYTES = PACKET_BYTES_MAX + SEALING_BYTES;
/** Attempts of which this worker remembers how they are sealed; to read that again costs 30 us. */
const SEALINGS_MAX = 64;

/** Nonces are its own: each of the loops that send has one. */
export interface SealingPacker {
  /**
   * The bytes to send, a view of `room` (ROOM_BYTES long). Throws when the memory cannot be read, does not go to that node, and when nobody on this host says
   * how the attempt is sealed: an item that a stranger made up must not get pages out as they are.
   */
  readonly pack: (item: WorkItem, destination: string, room: Uint8Array) => Uint8Array;
}

/** Whose packets they are to open: state of VFIO devices goes to VFIO agents. */
const purposeOf = (item: WorkItem): Purpose => (isOfDevice(item) ? "devices" : "ram");

export const makeSealingPacker = (packer: Packer, runtimeDirectory: string): SealingPacker => {
  const sealer = makeSealer();
  const sealings = new Map<string, Sealing>();
  /** An epoch is used once, so what is remembered of it stays true. */
  const sealingOf = ({ migration, epoch }: WorkItem): Sealing => {
    const path = sourceSealing(runtimeDirectory, migration, epoch);
    const known = sealings.get(path);
    if (known !== undefined) return known;
    const sealing = readSealing(path);
    if (sealings.size >= SEALINGS_MAX) for (const oldest of [...sealings.keys()].slice(0, 1)) sealings.delete(oldest);
    sealings.set(path, sealing);
    return sealing;
  };
  return {
    pack: (item, destination, room) => {
      const sealing = sealingOf(item);
      const place = room.subarray(SEALED_HEADER_BYTES, SEALED_HEADER_BYTES + PACKET_BYTES_MAX);
      const packet = packer.pack(item, destination, place);
      if (sealing.cipher === "none") return packet;
      const { migration, epoch } = item;
      return sealer.seal(room, packet.length, { migration, epoch, purpose: purposeOf(item) }, sealing.key);
    },
  };
};
