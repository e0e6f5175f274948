import { crc32 } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decoderSuite, positive, u32, wireId } from "./decoder.conformance.ts";
import {
  BLOCKS_MAX,
  DELTA_BYTES_MAX,
  DEVICE_STATE_BYTES_MAX,
  PACKET_PAGES_MAX,
  PAGE_BYTES,
  SHORT_PAGE_BYTES,
  SLICE_BYTES_MAX,
} from "./limits.ts";
import {
  type Address,
  type CheckPacket,
  COMPRESSIONS,
  decodePacket,
  PACKET_HEADER_BYTES,
  type Packet,
  type PagesPacket,
  payloadOffset,
  readId,
  type SlicePacket,
  sealCheck,
  sealPages,
  sealSlice,
  writeId,
} from "./packet.ts";
import { rawBytesOf, type ShortPage } from "./short-page.ts";

const address: fc.Arbitrary<Address> = fc.record({
  migration: wireId,
  epoch: positive,
  round: positive,
  item: u32,
  channel: fc.integer({ min: 0, max: 254 }),
  channelEpoch: u32,
});
/** Cheap bytes that no two packets share. */
const payloadOf = (bytes: number, seed: number): Uint8Array => {
  const payload = new Uint8Array(bytes);
  for (let i = 0; i < bytes; i += 61) payload[i] = (seed + i) & 0xff;
  return payload;
};

/** (pages, pages left out in front) of each run, at most PACKET_PAGES_MAX pages together. */
const runShapes = fc.array(fc.tuple(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 0, max: 2 ** 22 })), {
  minLength: 1,
  maxLength: 5,
});

const pagesPacket: fc.Arbitrary<PagesPacket> = fc
  .tuple(address, runShapes, fc.uniqueArray(fc.nat(59), { maxLength: 3 }), u32, fc.nat(BLOCKS_MAX - 1))
  .chain(([to, shapes, normal, seed, block]) => {
    const runs = new Uint32Array(shapes.length * 2);
    let next = 0;
    let pages = 0;
    shapes.forEach(([count, gap], r) => {
      runs[r * 2] = next + gap;
      runs[r * 2 + 1] = count;
      next += gap + count;
      pages += count;
    });
    const zeroMap = new Uint8Array((pages + 7) >>> 3);
    // Few pages with a payload: a fuzz loop should break headers, not copy payloads.
    const normalPages = normal.filter((page) => page < pages).length;
    for (let i = 0; i < pages; i++) if (!normal.includes(i)) zeroMap[i >>> 3]! |= 1 << (i & 7);
    const shown = Array.from({ length: pages }, (_, i) => i).filter((i) => normal.includes(i));
    // The first stands whole, the second is a delta or whole, the third a copy of the first.
    const short: ShortPage[] = [];
    if (shown.length > 1 && seed % 2 === 0)
      short.push({ how: "delta", page: shown[1]!, bytes: seed % (DELTA_BYTES_MAX + 1), base: seed });
    if (shown.length > 2) short.push({ how: "copy", page: shown[2]!, of: shown[0]! });
    const overflow = seed % 3 === 0 ? Math.min(normalPages, 1) : 0;
    const rawBytes = rawBytesOf(normalPages, short);
    return fc.constantFrom(...COMPRESSIONS).map((compression) => ({
      kind: "pages" as const,
      ...to,
      block,
      compression,
      runs,
      pages,
      normalPages,
      zeroMap,
      short,
      overflow,
      rawBytes,
      payload: payloadOf(compression === "none" ? rawBytes : seed % 300, seed),
    }));
  });

const slicePacket: fc.Arbitrary<SlicePacket> = fc
  .tuple(address, fc.integer({ min: 1, max: 600 }), fc.nat(65_535), u32, fc.constantFrom(...COMPRESSIONS))
  .chain(([to, rawBytes, stream, seed, compression]) =>
    fc
      .oneof(fc.nat(DEVICE_STATE_BYTES_MAX - rawBytes), fc.constant(0), fc.constant(DEVICE_STATE_BYTES_MAX - rawBytes))
      .map((offset) => ({
        kind: "slice" as const,
        ...to,
        stream,
        offset,
        compression,
        rawBytes,
        payload: payloadOf(compression === "none" ? rawBytes : seed % 300, seed),
      })),
  );

const checkPacket: fc.Arbitrary<CheckPacket> = pagesPacket.chain(({ runs, pages, block, ...packet }) =>
  fc.array(u32, { minLength: pages, maxLength: pages }).map((digests) => ({
    kind: "check" as const,
    migration: packet.migration,
    epoch: packet.epoch,
    round: packet.round,
    item: packet.item,
    channel: packet.channel,
    channelEpoch: packet.channelEpoch,
    block,
    runs,
    pages,
    digests: Uint32Array.from(digests),
  })),
);

const encode = (packet: Packet): Uint8Array => {
  if (packet.kind === "check") return sealCheck(new Uint8Array(2048).fill(0xee), packet);
  const start = packet.kind === "slice" ? PACKET_HEADER_BYTES : payloadOffset(packet.runs.length / 2, packet.pages);
  const short = packet.kind === "pages" ? packet.short : [];
  const buffer = new Uint8Array(start + packet.payload.length + short.length * SHORT_PAGE_BYTES + 32).fill(0xee);
  buffer.set(packet.payload, start);
  const payloadBytes = packet.payload.length;
  return packet.kind === "slice"
    ? sealSlice(buffer, { ...packet, payloadBytes })
    : sealPages(buffer, { ...packet, payloadBytes });
};

/** Makes the length and the checksum of a changed packet right again, as somebody who forges one would. */
const reseal = (bytes: Uint8Array): void => {
  if (bytes.length < PACKET_HEADER_BYTES) return;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const runs = view.getUint16(36, true);
  const start = view.getUint8(5) === 3 ? PACKET_HEADER_BYTES + runs * 8 : payloadOffset(runs, view.getUint16(38, true));
  const shortBytes = view.getUint8(5) === 1 ? view.getUint16(42, true) * SHORT_PAGE_BYTES : 0;
  if (bytes.length >= start + shortBytes) view.setUint32(44, bytes.length - start - shortBytes, true);
  if (view.getUint8(6) === 0) view.setUint32(56, view.getUint32(44, true), true);
  view.setUint32(60, crc32(bytes.subarray(64), crc32(bytes.subarray(0, 60))), true);
};

const anyPacket: fc.Arbitrary<Packet> = fc.oneof(pagesPacket, slicePacket, checkPacket);

decoderSuite<Packet>("a packet", {
  valid: anyPacket,
  encode,
  decode: decodePacket,
  repair: reseal,
  noticesEveryBit: true,
});

const sample = <A>(arbitrary: fc.Arbitrary<A>): A => fc.sample(arbitrary, { numRuns: 1, seed: 1 })[0]!;
const refusal = (bytes: Uint8Array): string => {
  const result = decodePacket(bytes);
  if (result.kind !== "malformed") throw new Error("it was accepted");
  return result.reason;
};
/** A packet after `change`, with its checksum right. */
const forged = (packet: Packet, change: (view: DataView, bytes: Uint8Array) => void): Uint8Array => {
  const bytes = encode(packet).slice();
  const view = new DataView(bytes.buffer);
  change(view, bytes);
  view.setUint32(60, crc32(bytes.subarray(64), crc32(bytes.subarray(0, 60))), true);
  return bytes;
};

describe("a forged packet whose checksum is right", () => {
  const to: Address = { migration: "00000000ffffffff", epoch: 1, round: 1, item: 0, channel: 0, channelEpoch: 0 };
  const pages: PagesPacket = {
    kind: "pages",
    ...to,
    block: 0,
    compression: "none",
    runs: Uint32Array.of(10, 2, 20, 1),
    pages: 3,
    normalPages: 2,
    zeroMap: Uint8Array.of(0b010),
    short: [],
    overflow: 0,
    rawBytes: 2 * PAGE_BYTES,
    payload: payloadOf(2 * PAGE_BYTES, 7),
  };
  const slice: SlicePacket = {
    kind: "slice",
    ...to,
    stream: 0,
    offset: 4096,
    compression: "none",
    rawBytes: 100,
    payload: payloadOf(100, 9),
  };
  const ofPages: ReadonlyArray<readonly [string, (view: DataView, bytes: Uint8Array) => void, RegExp]> = [
    ["another version", (view) => view.setUint8(4, 9), /version 9/],
    ["an unknown kind", (view) => view.setUint8(5, 4), /kind 4/],
    ["kind 0", (view) => view.setUint8(5, 0), /kind 0/],
    ["an unknown compression", (view) => view.setUint8(6, 3), /compression 3/],
    ["a magic that is not ours", (view) => view.setUint32(0, 0x31495747, true), /magic/],
    ["more pages with a base than it has", (view) => view.setUint8(7, 3), /with a base/],
    ["short pages that it does not have", (view) => view.setUint16(42, 1, true), /the header says/],
    ["an offset, which only slices have", (view) => view.setFloat64(48, 8, true), /offset/],
    ["epoch 0", (view) => view.setUint32(16, 0, true), /epoch/],
    ["round 0", (view) => view.setUint32(20, 0, true), /round/],
    ["channel 255", (view) => view.setUint16(28, 255, true), /channel 255/],
    ["block 512", (view) => view.setUint16(30, BLOCKS_MAX, true), /block 512/],
    ["more runs than pages", (view) => view.setUint16(36, 4, true), /4 runs of 3 pages/],
    ["more pages than a packet holds", (view) => view.setUint16(38, PACKET_PAGES_MAX + 1, true), /65 pages/],
    ["a payload longer than it is", (view) => view.setUint32(44, 0xffff_ffff, true), /the header says/],
    ["a payload shorter than it is", (view) => view.setUint32(44, 0, true), /the header says/],
    ["more raw bytes than a packet holds", (view) => view.setUint32(56, SLICE_BYTES_MAX + 1, true), /raw bytes/],
    ["raw bytes of another length", (view) => view.setUint32(56, PAGE_BYTES, true), /raw and payload/],
    ["a run of no pages", (view) => view.setUint32(68, 0, true), /run 0/],
    ["a run of 2^32 - 1 pages", (view) => view.setUint32(68, 0xffff_ffff, true), /run 0/],
    ["runs that overlap", (view) => view.setUint32(72, 11, true), /run 1/],
    ["runs that descend", (view) => view.setUint32(72, 3, true), /run 1/],
    ["a run behind the last page there can be", (view) => view.setUint32(64, 0xffff_ffff, true), /run 1/],
    ["runs of fewer pages than it says", (view) => view.setUint32(68, 1, true), /runs hold 2 pages/],
    ["a page too many in the zero map", (_, bytes) => bytes.set([0b1010], 80), /not there/],
    ["a zero map that disagrees with its counts", (_, bytes) => bytes.set([0b111], 80), /normal pages/],
    ["wrong counts", (view) => view.setUint16(40, 3, true), /normal pages/],
  ];
  it.each(ofPages)("of pages is refused for %s", (_, change, reason) => {
    expect(refusal(forged(pages, change))).toMatch(reason);
  });

  const shortened: PagesPacket = {
    ...pages,
    runs: Uint32Array.of(10, 4),
    pages: 4,
    normalPages: 3,
    short: [
      { how: "delta", page: 2, bytes: 9, base: 77 },
      { how: "copy", page: 3, of: 0 },
    ],
    overflow: 1,
    rawBytes: PAGE_BYTES + 9,
    payload: payloadOf(PAGE_BYTES + 9, 7),
  };
  const SHORT_AT = payloadOffset(1, 4) + PAGE_BYTES + 9;
  const ofShort: ReadonlyArray<readonly [string, (view: DataView) => void, RegExp]> = [
    ["a short page that is zero", (view) => view.setUint8(SHORT_AT, 1), /page 1 of 4 is short/],
    ["a short page that is not there", (view) => view.setUint8(SHORT_AT + 8, 4), /page 4 of 4/],
    ["a page that is short twice", (view) => view.setUint8(SHORT_AT + 8, 2), /page 2 of 4/],
    ["short pages in disorder", (view) => view.setUint8(SHORT_AT + 8, 0), /page 0 of 4/],
    ["an unknown way to be short", (view) => view.setUint8(SHORT_AT + 1, 3), /in way 3/],
    ["no way to be short", (view) => view.setUint8(SHORT_AT + 1, 0), /in way 0/],
    ["a delta as long as the page", (view) => view.setUint16(SHORT_AT + 2, PAGE_BYTES, true), /delta of 4096/],
    [
      "a delta that would make it longer",
      (view) => view.setUint16(SHORT_AT + 2, DELTA_BYTES_MAX + 1, true),
      /delta of/,
    ],
    ["a delta of another length", (view) => view.setUint16(SHORT_AT + 2, 8, true), /raw bytes/],
    ["a copy of itself", (view) => view.setUint16(SHORT_AT + 10, 3, true), /copy of page 3/],
    ["a copy of a later page", (view) => view.setUint16(SHORT_AT + 10, 0xffff, true), /copy of page 65535/],
    ["a copy of a zero page", (view) => view.setUint16(SHORT_AT + 10, 1, true), /copy of page 1/],
    ["a copy of a short page", (view) => view.setUint16(SHORT_AT + 10, 2, true), /copy of page 2/],
    ["a copy with a base", (view) => view.setUint32(SHORT_AT + 12, 1, true), /copy of page 0/],
    ["a page that is a delta and was none", (view) => view.setUint8(7, 3), /with a base/],
  ];
  it.each(ofShort)("of short pages is refused for %s", (_, change, reason) => {
    expect(decodePacket(encode(shortened))).toEqual(shortened);
    expect(refusal(forged(shortened, change))).toMatch(reason);
  });

  const ofSlices: ReadonlyArray<readonly [string, (view: DataView) => void, RegExp]> = [
    ["an offset that is no number", (view) => view.setFloat64(48, Number.NaN, true), /slice of 100 bytes at NaN/],
    ["an infinite offset", (view) => view.setFloat64(48, Number.POSITIVE_INFINITY, true), /Infinity/],
    ["a negative offset", (view) => view.setFloat64(48, -1, true), /at -1/],
    ["minus zero", (view) => view.setFloat64(48, -0, true), /slice/],
    ["half a byte", (view) => view.setFloat64(48, 0.5, true), /at 0.5/],
    ["an offset of 2^53", (view) => view.setFloat64(48, 2 ** 53, true), /slice/],
    ["an offset of 2^53 - 1", (view) => view.setFloat64(48, 2 ** 53 - 1, true), /slice/],
    ["an end one byte beyond the limit", (view) => view.setFloat64(48, DEVICE_STATE_BYTES_MAX - 99, true), /slice/],
    ["normal pages", (view) => view.setUint16(40, 1, true), /pages/],
    ["runs", (view) => view.setUint16(36, 1, true), /runs/],
    ["short pages", (view) => view.setUint16(42, 1, true), /short pages/],
    ["pages with a base", (view) => view.setUint8(7, 1), /short pages/],
  ];
  it.each(ofSlices)("of device state is refused for %s", (_, change, reason) => {
    expect(refusal(forged(slice, change))).toMatch(reason);
  });

  it("is refused for an empty slice, and for a packet without pages", () => {
    expect(refusal(encode({ ...slice, rawBytes: 0, payload: new Uint8Array(0) }))).toMatch(/empty/);
    const nothing = { ...pages, runs: new Uint32Array(0), pages: 0, normalPages: 0, zeroMap: new Uint8Array(0) };
    expect(refusal(encode({ ...nothing, rawBytes: 0, payload: new Uint8Array(0) }))).toMatch(/no pages/);
  });

  it("is refused with bytes behind its end", () => {
    const bytes = encode(sample(anyPacket));
    const longer = new Uint8Array(bytes.length + 1);
    longer.set(bytes);
    expect(refusal(longer)).toMatch(/the header says/);
  });
});

describe("a packet at its limits", () => {
  const to: Address = {
    migration: "f".repeat(16),
    epoch: 0xffff_ffff,
    round: 0xffff_ffff,
    item: 0xffff_ffff,
    channel: 254,
    channelEpoch: 0xffff_ffff,
  };
  it("holds 64 full pages at the end of the largest block, and fits the default max_payload of a NATS server", () => {
    const packet: PagesPacket = {
      kind: "pages",
      ...to,
      block: BLOCKS_MAX - 1,
      compression: "none",
      runs: Uint32Array.from({ length: 128 }, (_, i) => (i % 2 === 0 ? 2 ** 32 - 128 + i : 1)),
      pages: 64,
      normalPages: 64,
      zeroMap: new Uint8Array(8),
      short: [],
      overflow: 0,
      rawBytes: 64 * PAGE_BYTES,
      payload: payloadOf(64 * PAGE_BYTES, 1),
    };
    const bytes = encode(packet);
    expect(bytes.length).toBeLessThan(1024 ** 2);
    expect(decodePacket(bytes)).toEqual(packet);
  });
  it("holds the last slice of the longest device state", () => {
    const packet: SlicePacket = {
      kind: "slice",
      ...to,
      stream: 65_535,
      offset: DEVICE_STATE_BYTES_MAX - SLICE_BYTES_MAX,
      compression: "none",
      rawBytes: SLICE_BYTES_MAX,
      payload: payloadOf(SLICE_BYTES_MAX, 1),
    };
    expect(decodePacket(encode(packet))).toEqual(packet);
  });
});

describe("an id on the wire", () => {
  it("is the 16 hex digits that were written, leading zeros included", () => {
    const view = new DataView(new ArrayBuffer(16));
    fc.assert(
      fc.property(wireId, (hex) => {
        writeId(view, 4, hex);
        expect(readId(view, 4)).toBe(hex);
      }),
    );
  });
});
