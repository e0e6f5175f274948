/** One message of the bare lane is as long as one packet, and its window is a channel's. */
import { PACKET_PAGES_MAX, PAGE_BYTES, payloadOffset } from "@godwit/protocol";

/** Unacknowledged bytes of a channel, as the RAM sender allows them. */
export const WINDOW_BYTES = 2 * 1024 ** 2;
export const MESSAGE_PAYLOAD_BYTES = PACKET_PAGES_MAX * PAGE_BYTES;
/** As long as a packet of one run of pages. */
export const MESSAGE_BYTES = payloadOffset(1, PACKET_PAGES_MAX) + MESSAGE_PAYLOAD_BYTES;
