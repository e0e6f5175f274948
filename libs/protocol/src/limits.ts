/** Page size on the wire, bytes. */
export const PAGE_BYTES = 4096;
/**
 * Pages in one packet. 64 pages are 256 KiB: of the payloads measured between two nats.js processes the fastest, and four of
 * them fit a server's default `max_payload` of 1 MiB.
 */
export const PACKET_PAGES_MAX = 64;
/** Bytes of device state in one packet; the same size as a full RAM packet, so that one window fits both. */
export const SLICE_BYTES_MAX = PACKET_PAGES_MAX * PAGE_BYTES;
/** RAMBlocks of a guest: QEMU guests have about ten, and at most 256 DIMMs; an offer of so many fits CONTROL_BYTES_MAX. */
export const BLOCKS_MAX = 512;
/** Length of one RAMBlock, bytes: page numbers are 32 bits on the wire; 8 TiB leaves headroom in every sum below 2^53. */
export const BLOCK_BYTES_MAX = 8 * 1024 ** 4;
/** multifd channels, as QEMU's parameter allows. */
export const CHANNELS_MAX = 255;
/** A guest's own device state, bytes: a QEMU with 64 MiB of unshared video memory and firmware still fits. */
export const DEVICE_STATE_BYTES_MAX = 256 * 1024 ** 2;
/** A control message, bytes: an offer with BLOCKS_MAX blocks fits; more is an attack. */
export const CONTROL_BYTES_MAX = 256 * 1024;
/** RAMBlocks whose comparison a report shows, the damaged ones first: the few that a guest has, and no message too long with five hundred. */
export const VERIFY_BLOCKS_SHOWN = 16;
/** Items acknowledged by one message: a burst of one event-loop turn. */
export const ACK_ITEMS_MAX = 1024;

if (PACKET_PAGES_MAX * PAGE_BYTES + 64 + PACKET_PAGES_MAX * 9 > 1024 ** 2) {
  throw new Error("a full packet must fit the default max_payload of a NATS server");
}
