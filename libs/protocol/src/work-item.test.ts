import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decoderSuite, positive, u32, wireId } from "./decoder.conformance.ts";
import { LANES } from "./direct-lane.ts";
import { BLOCKS_MAX, DEVICE_STATE_BYTES_MAX, PACKET_PAGES_MAX, SLICE_BYTES_MAX } from "./limits.ts";
import { COMPRESSIONS } from "./packet.ts";
import {
  decodeWorkItem,
  encodeWorkItem,
  NO_SLOT,
  type PagesItem,
  type SliceItem,
  type WorkItem,
  type XbzrleItem,
} from "./work-item.ts";

const base = fc.record({
  migration: wireId,
  epoch: positive,
  round: positive,
  item: u32,
  channel: fc.integer({ min: 0, max: 254 }),
  channelEpoch: u32,
  compression: fc.constantFrom(...COMPRESSIONS),
  level: fc.integer({ min: 0, max: 9 }),
  deadline: fc.oneof(fc.integer({ min: 0, max: 2 ** 53 - 1 }), fc.constantFrom(0, 0.5, 1.7e12)),
  lane: fc.constantFrom(...LANES),
});

const pagesItem: fc.Arbitrary<PagesItem> = fc
  .record({
    base,
    shapes: fc.array(fc.tuple(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 0, max: 2 ** 22 })), {
      minLength: 1,
      maxLength: 5,
    }),
    block: fc.nat(BLOCKS_MAX - 1),
    fileOffset: fc.oneof(fc.nat(2 ** 30), fc.constantFrom(0, 4096, 2 ** 53 - 1)),
    mode: fc.constantFrom("none", "worker", "given"),
    fill: fc.nat(255),
    slot: fc.constantFrom(null, 0, 12_345, NO_SLOT - 100),
  })
  .map(({ base, shapes, block, fileOffset, mode, fill, slot }) => {
    const runs = new Uint32Array(shapes.length * 2);
    let next = 0;
    let pages = 0;
    shapes.forEach(([count, gap], r) => {
      runs[r * 2] = next + gap;
      runs[r * 2 + 1] = count;
      next += gap + count;
      pages += count;
    });
    const map = new Uint8Array((pages + 7) >>> 3).fill(fill);
    if ((pages & 7) !== 0) map[map.length - 1]! &= (1 << (pages & 7)) - 1;
    const zeroPages = mode === "given" ? map : mode;
    if (slot === null) return { kind: "pages", ...base, block, fileOffset, zeroPages, runs, xbzrle: null } as PagesItem;
    const held = map.slice();
    const slots = Uint32Array.from({ length: pages }, (_, i) => slot + i);
    for (let i = 0; i < pages; i += 3) {
      slots[i] = NO_SLOT;
      held[i >>> 3]! &= ~(1 << (i & 7));
    }
    return { kind: "pages", ...base, block, fileOffset, zeroPages, runs, xbzrle: { slots, held } } as PagesItem;
  });

const sliceItem: fc.Arbitrary<SliceItem> = fc
  .tuple(base, fc.nat(65_535), fc.integer({ min: 1, max: SLICE_BYTES_MAX }))
  .chain(([shared, stream, bytes]) =>
    fc
      .oneof(fc.nat(DEVICE_STATE_BYTES_MAX - bytes), fc.constant(DEVICE_STATE_BYTES_MAX - bytes))
      .map((offset) => ({ kind: "slice" as const, ...shared, stream, offset, bytes })),
  );

decoderSuite<WorkItem>("a work item", {
  valid: fc.oneof(pagesItem, sliceItem),
  encode: encodeWorkItem,
  decode: decodeWorkItem,
  // It travels on one host's bus without a checksum: what it names is checked, not whether it was meant.
  noticesEveryBit: false,
});

const shared = {
  migration: "0123456789abcdef",
  epoch: 1,
  round: 1,
  item: 0,
  channel: 0,
  channelEpoch: 1,
  compression: "none",
  level: 0,
  deadline: 1,
  lane: "nats",
} as const;
const pages: PagesItem = {
  kind: "pages",
  ...shared,
  block: 0,
  fileOffset: 4096,
  zeroPages: "worker",
  runs: Uint32Array.of(10, 2, 20, 1),
  xbzrle: null,
};
const slice: SliceItem = { kind: "slice", ...shared, stream: 0, offset: 0, bytes: 100 };

const refusal = (bytes: Uint8Array): string => {
  const result = decodeWorkItem(bytes);
  if (result.kind !== "malformed") throw new Error("it was accepted");
  return result.reason;
};
const forged = (item: WorkItem, change: (view: DataView) => void): Uint8Array => {
  const bytes = encodeWorkItem(item);
  change(new DataView(bytes.buffer));
  return bytes;
};

describe("a forged work item", () => {
  const ofPages: ReadonlyArray<readonly [string, (view: DataView) => void]> = [
    ["a packet's magic", (view) => view.setUint32(0, 0x31505747, true)],
    ["another version", (view) => view.setUint8(4, 9)],
    ["kind 0", (view) => view.setUint8(5, 0)],
    ["an unknown compression", (view) => view.setUint8(6, 9)],
    ["a compression level that no library knows", (view) => view.setUint8(7, 255)],
    ["epoch 0", (view) => view.setUint32(16, 0, true)],
    ["round 0", (view) => view.setUint32(20, 0, true)],
    ["channel 255", (view) => view.setUint16(28, 255, true)],
    ["block 512", (view) => view.setUint16(30, BLOCKS_MAX, true)],
    ["no runs", (view) => view.setUint16(36, 0, true)],
    ["fewer runs than it holds", (view) => view.setUint16(36, 1, true)],
    ["more runs than it holds", (view) => view.setUint16(36, 0xffff, true)],
    ["an unknown zero page mode", (view) => view.setUint8(38, 3)],
    ["an unknown lane", (view) => view.setUint8(39, 2)],
    ["no deadline", (view) => view.setFloat64(40, Number.NaN, true)],
    ["no file offset", (view) => view.setFloat64(48, Number.NaN, true)],
    ["a negative file offset", (view) => view.setFloat64(48, -4096, true)],
    ["half a byte of file offset", (view) => view.setFloat64(48, 0.5, true)],
    ["a file offset of 2^53", (view) => view.setFloat64(48, 2 ** 53, true)],
    ["the bytes of a slice", (view) => view.setUint32(56, 1, true)],
    ["an unknown way to keep pages", (view) => view.setUint32(60, 2, true)],
    ["slots that it does not have", (view) => view.setUint32(60, 1, true)],
    ["an empty run", (view) => view.setUint32(68, 0, true)],
    ["a run longer than a packet", (view) => view.setUint32(68, PACKET_PAGES_MAX + 1, true)],
    ["more pages than a packet", (view) => view.setUint32(76, PACKET_PAGES_MAX - 1, true)],
    ["runs that overlap", (view) => view.setUint32(72, 11, true)],
    ["runs that descend", (view) => view.setUint32(72, 1, true)],
  ];
  it.each(ofPages)("of pages is refused for %s", (_, change) => {
    expect(refusal(forged(pages, change))).not.toBe("");
  });

  const ofSlices: ReadonlyArray<readonly [string, (view: DataView) => void]> = [
    ["no bytes", (view) => view.setUint32(56, 0, true)],
    ["more bytes than a packet holds", (view) => view.setUint32(56, SLICE_BYTES_MAX + 1, true)],
    ["an end beyond the limit", (view) => view.setFloat64(48, DEVICE_STATE_BYTES_MAX - 99, true)],
    ["an offset of minus zero", (view) => view.setFloat64(48, -0, true)],
    ["an offset of 2^53 - 1", (view) => view.setFloat64(48, 2 ** 53 - 1, true)],
    ["runs", (view) => view.setUint16(36, 1, true)],
    ["a zero page mode", (view) => view.setUint8(38, 1)],
    ["slots for pages", (view) => view.setUint32(60, 1, true)],
  ];
  it.each(ofSlices)("of device state is refused for %s", (_, change) => {
    expect(refusal(forged(slice, change))).not.toBe("");
  });

  it("takes every level that its library has", () => {
    for (const [compression, level] of [
      ["zlib", 9],
      ["zstd", 20],
      ["none", 20],
    ] as const) {
      expect(decodeWorkItem(encodeWorkItem({ ...pages, compression, level }))).toEqual({
        ...pages,
        compression,
        level,
      });
      expect(refusal(encodeWorkItem({ ...pages, compression, level: level + 1 }))).toMatch(/level/);
    }
  });

  it("is refused for a zero map that is shorter or longer than its pages", () => {
    for (const length of [0, 2, 8]) {
      expect(refusal(encodeWorkItem({ ...pages, zeroPages: new Uint8Array(length) }))).toMatch(/zero map/);
    }
  });

  it("is refused for slots of more or fewer pages than it has, and for a page that is held without a slot", () => {
    const slots = Uint32Array.of(1, NO_SLOT, 3);
    const of = (xbzrle: XbzrleItem) => encodeWorkItem({ ...pages, xbzrle });
    expect(decodeWorkItem(of({ slots, held: Uint8Array.of(0b101) })).kind).toBe("pages");
    expect(refusal(of({ slots, held: Uint8Array.of(0b010) }))).toMatch(/no slot/);
    expect(refusal(of({ slots, held: Uint8Array.of(0b1000) }))).toMatch(/not there/);
    for (const held of [new Uint8Array(0), new Uint8Array(2)]) expect(refusal(of({ slots, held }))).toMatch(/slots/);
    for (const count of [2, 4])
      expect(refusal(of({ slots: new Uint32Array(count), held: new Uint8Array(1) }))).toMatch(/slots/);
  });

  it("is refused for a zero map that marks a page which is not there", () => {
    expect(refusal(encodeWorkItem({ ...pages, zeroPages: Uint8Array.of(0b1000) }))).toMatch(/zero map/);
  });
});
