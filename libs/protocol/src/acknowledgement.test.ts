import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Acknowledgement, decodeAcknowledgement, encodeAcknowledgement } from "./acknowledgement.ts";
import { decoderSuite, u32, wireId } from "./decoder.conformance.ts";
import { ACK_ITEMS_MAX } from "./limits.ts";

const anyItems = fc.array(u32, { minLength: 1, maxLength: 40 }).map((items) => Uint32Array.from(items));
const shared = { migration: wireId, epoch: u32, round: u32, incarnation: wireId, items: anyItems };

const xbzrle = fc.record({ pages: u32, bytes: u32, overflow: u32 });

const valid: fc.Arbitrary<Acknowledgement> = fc.oneof(
  fc.record({
    kind: fc.constant("applied" as const),
    ...shared,
    normalPages: u32,
    wireBytes: u32,
    xbzrle,
    reason: fc.constant(""),
    differing: fc.constant(new Uint8Array(0)),
  }),
  fc.record({
    kind: fc.constant("differs" as const),
    ...shared,
    items: u32.map((item) => Uint32Array.of(item)),
    normalPages: u32,
    wireBytes: u32,
    xbzrle,
    reason: fc.constant(""),
    differing: fc.uint8Array({ minLength: 1, maxLength: 8 }),
  }),
  fc.record({
    kind: fc.constant("refused" as const),
    ...shared,
    normalPages: u32,
    wireBytes: u32,
    xbzrle,
    // Whole characters, so that none is cut in two at the limit, which is tried below.
    reason: fc.string({ unit: "grapheme", maxLength: 40 }),
    differing: fc.constant(new Uint8Array(0)),
  }),
);

decoderSuite<Acknowledgement>("an acknowledgement", {
  valid,
  encode: encodeAcknowledgement,
  decode: decodeAcknowledgement,
  noticesEveryBit: false,
});

const acknowledgement: Acknowledgement = {
  kind: "applied",
  migration: "0123456789abcdef",
  epoch: 1,
  round: 1,
  incarnation: "fedcba9876543210",
  items: Uint32Array.of(1, 2, 3),
  normalPages: 3,
  wireBytes: 12_345,
  xbzrle: { pages: 2, bytes: 300, overflow: 1 },
  reason: "",
  differing: new Uint8Array(0),
};
const refusal = (bytes: Uint8Array): string => {
  const result = decodeAcknowledgement(bytes);
  if (result.kind !== "malformed") throw new Error("it was accepted");
  return result.reason;
};
const forged = (change: (view: DataView) => void): Uint8Array => {
  const bytes = encodeAcknowledgement(acknowledgement);
  change(new DataView(bytes.buffer));
  return bytes;
};

describe("an acknowledgement", () => {
  it("holds as many items as one message may, and not one more", () => {
    const of = (length: number) =>
      encodeAcknowledgement({ ...acknowledgement, items: new Uint32Array(length).fill(7) });
    expect(decodeAcknowledgement(of(ACK_ITEMS_MAX)).kind).toBe("applied");
    expect(refusal(of(ACK_ITEMS_MAX + 1))).toMatch(/items/);
    expect(refusal(of(0))).toMatch(/0 items/);
  });

  it("cuts a worker's long reason, in whichever character", () => {
    for (const reason of ["x".repeat(5000), "é".repeat(300), `x${"é".repeat(300)}`, "😀".repeat(200)]) {
      const decoded = decodeAcknowledgement(encodeAcknowledgement({ ...acknowledgement, kind: "refused", reason }));
      expect(decoded.kind).toBe("refused");
      const { reason: kept } = decoded as Acknowledgement;
      expect(kept.length).toBeGreaterThan(100);
      expect(reason.startsWith(kept)).toBe(true);
    }
  });

  it.each([
    ["a work item's magic", (view: DataView) => view.setUint32(0, 0x31495747, true)],
    ["another version", (view: DataView) => view.setUint8(4, 9)],
    ["kind 0", (view: DataView) => view.setUint8(5, 0)],
    ["kind 3", (view: DataView) => view.setUint8(5, 3)],
    ["fewer items than it holds", (view: DataView) => view.setUint16(6, 2, true)],
    ["more items than it holds", (view: DataView) => view.setUint16(6, 4, true)],
    ["65535 items", (view: DataView) => view.setUint16(6, 0xffff, true)],
  ])("is refused for %s", (_, change) => {
    expect(refusal(forged(change))).not.toBe("");
  });
});
