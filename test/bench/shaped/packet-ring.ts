/**
 * Packets on their way from the thread that reads them to the one that writes them, in order, each with the moment when it is due.
 *
 * One thread puts, one takes. Each waits for the other without using a processor, and nothing is ever dropped here: a full ring makes
 * the reader wait, and then packets wait where the kernel queues them.
 */

/** The longest packet that the kernel hands over at once, bytes: 64 KiB of IP, and the virtio header before it. */
export const PACKET_BYTES_MAX = 65_536 + 64;

export interface PacketRing {
  readonly slots: number;
  /** How many were put, and taken, since the start. */
  readonly counts: Int32Array;
  readonly lengths: Int32Array;
  readonly dueMs: Float64Array;
  readonly packets: Uint8Array;
}

const PUT = 0;
const TAKEN = 1;

/** A ring that other threads can be given. */
export const makeRing = (slots: number): PacketRing => ({
  slots,
  counts: new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT)),
  lengths: new Int32Array(new SharedArrayBuffer(slots * Int32Array.BYTES_PER_ELEMENT)),
  dueMs: new Float64Array(new SharedArrayBuffer(slots * Float64Array.BYTES_PER_ELEMENT)),
  packets: new Uint8Array(new SharedArrayBuffer(slots * PACKET_BYTES_MAX)),
});

/** Waits for room. `fill` writes the packet there and returns its length, bytes, and when it is due, ms. */
export const put = (
  { slots, counts, lengths, dueMs, packets }: PacketRing,
  fill: (room: Uint8Array) => { readonly length: number; readonly dueMs: number },
): void => {
  const n = counts[PUT]!;
  for (let taken = Atomics.load(counts, TAKEN); n - taken >= slots; taken = Atomics.load(counts, TAKEN))
    Atomics.wait(counts, TAKEN, taken);
  const slot = n % slots;
  const filled = fill(packets.subarray(slot * PACKET_BYTES_MAX, (slot + 1) * PACKET_BYTES_MAX));
  lengths[slot] = filled.length;
  dueMs[slot] = filled.dueMs;
  Atomics.store(counts, PUT, n + 1);
  Atomics.notify(counts, PUT);
};

/** Waits for a packet; it stays where it is until `use` returns. */
export const take = (
  { slots, counts, lengths, dueMs, packets }: PacketRing,
  use: (packet: Uint8Array, dueMs: number) => void,
): void => {
  const n = counts[TAKEN]!;
  while (Atomics.load(counts, PUT) === n) Atomics.wait(counts, PUT, n);
  const slot = n % slots;
  const start = slot * PACKET_BYTES_MAX;
  use(packets.subarray(start, start + lengths[slot]!), dueMs[slot]!);
  Atomics.store(counts, TAKEN, n + 1);
  Atomics.notify(counts, TAKEN);
};
