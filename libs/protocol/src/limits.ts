/** Page size on the wire, bytes. */
export const PAGE_BYTES = 4096;
/**
 * Pages in one packet. 64 pages are 256 KiB: of the payloads measured between two nats.js processes the fastest, and four of
 * them fit a server's default `max_payload` of 1 MiB.
 */
export const PACKET_PAGES_MAX = 64;
/** Pages that a worker copies between memory and a checkpoint at once: 1 MiB, what QEMU's readers take. */
export const FILE_ITEM_PAGES_MAX = 256;
/** What a packet says of a page that it holds in fewer bytes than a page has, bytes. */
export const SHORT_PAGE_BYTES = 8;
/** A delta of a page, bytes: with what is said of it a byte less than the page, so that short pages never make a packet longer. */
export const DELTA_BYTES_MAX = PAGE_BYTES - SHORT_PAGE_BYTES - 1;
/** Bytes of device state in one packet; the same size as a full RAM packet, so that one window fits both. */
export const SLICE_BYTES_MAX = PACKET_PAGES_MAX * PAGE_BYTES;
/** What each message keeps free for the seal of capability `encryption`, bytes; `libs/encryption` needs 56. */
export const SEAL_ROOM_BYTES = 64;
/** RAMBlocks of a guest: QEMU guests have about ten, and at most 256 DIMMs; an offer of so many fits CONTROL_BYTES_MAX. */
export const BLOCKS_MAX = 512;
/** Length of one RAMBlock, bytes: page numbers are 32 bits on the wire; 8 TiB leaves headroom in every sum below 2^53. */
export const BLOCK_BYTES_MAX = 8 * 1024 ** 4;
/** multifd channels, as QEMU's parameter allows. */
export const CHANNELS_MAX = 255;
/** A guest's own device state, bytes: a QEMU with 64 MiB of unshared video memory and firmware still fits. */
export const DEVICE_STATE_BYTES_MAX = 256 * 1024 ** 2;
/** VFIO devices of a guest: a manifest of so many fits an ownership record; hosts have as many slots. */
export const DEVICES_MAX = 16;
/** The migration stream of a VFIO device, bytes: precopy of hours at 100 MB/s; the sum with any slice stays below 2^53. */
export const VFIO_STREAM_BYTES_MAX = 1024 ** 4;
/** The configuration space of a VFIO device, bytes: PCI Express has 4 KiB. It is loaded as a whole, so all of it may have to wait. */
export const VFIO_CONFIG_BYTES_MAX = 64 * 1024;
/** How long a stream of device state may get, bytes; 0 is the guest's own. */
export const streamBytesMax = (stream: number): number =>
  stream === 0 ? DEVICE_STATE_BYTES_MAX : VFIO_STREAM_BYTES_MAX;
/** A control message, bytes: an offer with BLOCKS_MAX blocks fits; more is an attack. */
export const CONTROL_BYTES_MAX = 256 * 1024;
/** RAMBlocks whose comparison a report shows, the damaged ones first: the few that a guest has, and no message too long with five hundred. */
export const VERIFY_BLOCKS_SHOWN = 16;
/** Items acknowledged by one message: a burst of one event-loop turn. */
export const ACK_ITEMS_MAX = 1024;

if (PACKET_PAGES_MAX * PAGE_BYTES + 64 + PACKET_PAGES_MAX * 9 > 1024 ** 2) {
  throw new Error("a full packet must fit the default max_payload of a NATS server");
}
