/** A batch of messages of a migration's channels: which are packets, which still count, what was applied. */
import type { Message } from "@godwit/fabric";
import {
  ACK_ITEMS_MAX,
  decodePacket,
  encodeAcknowledgement,
  NO_XBZRLE,
  type Packet,
  type PagesPacket,
  SHORT_PAGE_BYTES,
  type XbzrleCount,
} from "@godwit/protocol";
import type { Receiver } from "./applying.ts";
import { admit, type Destination, Fence } from "./decisions/index.ts";

const NOTHING = new Uint8Array(0);

/** Not applied, and not silent either: the producer repairs what differs, and checks again; or sends whole what was a delta of something else. */
const differs = (destination: Destination, packet: Packet, differing: Uint8Array): Uint8Array =>
  encodeAcknowledgement({
    kind: "differs",
    migration: destination.migration,
    epoch: destination.epoch,
    round: packet.round,
    incarnation: destination.incarnation,
    items: Uint32Array.of(packet.item),
    normalPages: 0,
    wireBytes: 0,
    xbzrle: NO_XBZRLE,
    reason: "",
    differing,
  });

export interface Received {
  /** Acknowledgements to send, one message for each round and ACK_ITEMS_MAX items. */
  readonly acknowledgements: ReadonlyArray<Uint8Array>;
  /** The last packet that was no packet, or broke a rule; for the log. */
  readonly complaint: string | null;
}

const withXbzrle = (count: XbzrleCount, { short, overflow }: PagesPacket): XbzrleCount => {
  if (short.length === 0 && overflow === 0) return count;
  let { pages, bytes } = count;
  for (const page of short) {
    if (page.how !== "delta") continue;
    pages++;
    bytes += page.bytes + SHORT_PAGE_BYTES;
  }
  return { pages, bytes, overflow: count.overflow + overflow };
};

/** Applies what may be applied. Throws what the receiver throws; what was applied before is acknowledged by nobody then, and goes again. */
export const receive = (destination: Destination, receiver: Receiver, messages: ReadonlyArray<Message>): Received => {
  const { fence } = destination;
  const acknowledgements: Uint8Array[] = [];
  let complaint: string | null = null;
  let items: number[] = [];
  let normalPages = 0;
  let wireBytes = 0;
  let xbzrle = NO_XBZRLE;
  let round = Fence.roundOf(fence);
  let freshItems = true;
  const acknowledge = (): void => {
    if (items.length === 0) return;
    acknowledgements.push(
      encodeAcknowledgement({
        kind: "applied",
        migration: destination.migration,
        epoch: destination.epoch,
        round,
        incarnation: destination.incarnation,
        items: Uint32Array.from(items),
        normalPages,
        wireBytes,
        xbzrle,
        reason: "",
        differing: NOTHING,
      }),
    );
    items = [];
    normalPages = 0;
    wireBytes = 0;
    xbzrle = NO_XBZRLE;
  };
  for (const message of messages) {
    const packet = decodePacket(message.data);
    if (packet.kind === "malformed") {
      complaint = packet.reason;
      fence.dropped++;
      continue;
    }
    const verdict = admit(destination, packet);
    if (verdict !== "apply") {
      if (verdict === "item out of range" || verdict === "other migration") complaint = verdict;
      fence.dropped++;
      continue;
    }
    const fresh = !Fence.isApplied(fence, packet);
    const applied = fresh ? receiver.apply(packet) : "applied";
    if (applied !== "applied") {
      if ("malformed" in applied) {
        complaint = applied.malformed;
        fence.dropped++;
      } else acknowledgements.push(differs(destination, packet, applied.differing));
      continue;
    }
    if (fresh) Fence.applied(fence, packet);
    // Copies are acknowledged apart: the counters of a message are sums, and the producer must not count a page twice.
    if (packet.round !== round || fresh !== freshItems || items.length === ACK_ITEMS_MAX) {
      acknowledge();
      round = packet.round;
      freshItems = fresh;
    }
    items.push(packet.item);
    if (packet.kind === "pages") {
      normalPages += packet.normalPages;
      xbzrle = withXbzrle(xbzrle, packet);
    }
    if (packet.kind === "pages" && fresh) {
      fence.pages += packet.pages;
      fence.normalPages += packet.normalPages;
    }
    wireBytes += message.data.length;
    fence.wireBytes += message.data.length;
  }
  acknowledge();
  return { acknowledgements, complaint };
};
