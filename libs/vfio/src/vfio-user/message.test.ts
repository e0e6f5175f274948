import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decoderSuite, u32 } from "../../../protocol/src/decoder.conformance.ts";
import { COMMANDS, decodeHeader, encodeError, HEADER_BYTES, TRANSFER_BYTES_MAX, viewOf } from "./header.ts";
import type { Reply, Request } from "./message.ts";
import { decodeReply, encodeReply } from "./reply.ts";
import { decodeRequest, encodeRequest } from "./request.ts";

const u16 = fc.nat(0xffff);
const u64 = fc.maxSafeNat();
const bytes = fc.uint8Array({ maxLength: 300 });
const operations = fc.nat(0xffff).map((bits) => bits * 0x1_0000);
/** What UTF-8 keeps: no lone halves of a pair, no NUL. */
const text = fc.string({ unit: "binary", maxLength: 200 }).map((value) => value.replaceAll("\0", ""));

const version = fc.record({ kind: fc.constant("version" as const), major: u16, minor: u16, text });
const dmaUnmap = fc.record({ kind: fc.constant("dma-unmap" as const), flags: u32, iova: u64, bytes: u64 });

const request: fc.Arbitrary<Request> = fc.oneof(
  version,
  dmaUnmap,
  fc.record({ kind: fc.constant("dma-map" as const), flags: u32, fdOffset: u64, iova: u64, bytes: u64 }),
  fc.constantFrom<Request>({ kind: "device-info" }, { kind: "reset" }, { kind: "precopy-info" }),
  fc.record({ kind: fc.constant("region-info" as const), region: u32 }),
  fc.record({
    kind: fc.constant("region-read" as const),
    region: u32,
    offset: u64,
    count: fc.nat(TRANSFER_BYTES_MAX),
  }),
  fc.record({ kind: fc.constant("region-write" as const), region: u32, offset: u64, data: bytes }),
  fc.record({
    kind: fc.constant("feature" as const),
    index: u16,
    operations,
    argsz: fc.integer({ min: 8, max: 0xffff_ffff }),
    data: bytes,
  }),
  fc.record({ kind: fc.constant("mig-data-read" as const), size: fc.nat(TRANSFER_BYTES_MAX) }),
  fc.record({ kind: fc.constant("mig-data-write" as const), data: bytes }),
);

const reply: fc.Arbitrary<Reply> = fc.oneof(
  version,
  dmaUnmap,
  fc.constantFrom<Reply>({ kind: "dma-map" }, { kind: "reset" }, { kind: "mig-data-write" }),
  fc.record({ kind: fc.constant("device-info" as const), flags: u32, regions: u32, irqs: u32 }),
  fc.record({ kind: fc.constant("region-info" as const), flags: u32, region: u32, bytes: u64, fdOffset: u64 }),
  fc.record({ kind: fc.constant("region-read" as const), region: u32, offset: u64, data: bytes }),
  fc.record({ kind: fc.constant("region-write" as const), region: u32, offset: u64, count: u32 }),
  fc.record({ kind: fc.constant("feature" as const), index: u16, operations, data: bytes }),
  fc.record({ kind: fc.constant("mig-data-read" as const), data: bytes }),
  fc.record({ kind: fc.constant("precopy-info" as const), initialBytes: u64, dirtyBytes: u64 }),
  fc.record({ kind: fc.constant("error" as const), command: u16, errno: fc.integer({ min: 1, max: 4095 }) }),
);

decoderSuite("a request", {
  valid: request,
  encode: (value) => encodeRequest(7, value),
  decode: decodeRequest,
  noticesEveryBit: false,
});
decoderSuite("a reply", {
  valid: reply,
  encode: (value) => encodeReply(7, value),
  decode: decodeReply,
  noticesEveryBit: false,
});

const refusal = (result: { readonly kind: string }): string =>
  result.kind === "malformed" ? (result as unknown as { readonly reason: string }).reason : `taken: ${result.kind}`;

describe("the bytes on the wire", () => {
  it("are those that libvfio-user reads", () => {
    const frame = encodeRequest(0x1234, { kind: "region-read", region: 7, offset: 0x40, count: 16 });
    expect(Buffer.from(frame).toString("hex")).toBe(
      "34120900200000000000000000000000" + "40000000000000000700000010000000",
    );
    const setState = encodeRequest(1, {
      kind: "feature",
      index: 2,
      operations: 1 << 17,
      argsz: 16,
      data: new Uint8Array([3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
    });
    expect(Buffer.from(setState).toString("hex")).toBe(
      "01001000200000000000000000000000" + "1000000002000200" + "03000000ffffffff",
    );
  });

  it("name the command that an error answers, and say it as libvfio-user does", () => {
    const frame = encodeError({ id: 9, command: COMMANDS.reset }, 22);
    expect(Buffer.from(frame).toString("hex")).toBe("09000d00100000002100000016000000");
    expect(decodeReply(frame)).toEqual({ kind: "error", command: 13, errno: 22 });
  });
});

describe("a header", () => {
  const header = (patch: (view: DataView) => void): Uint8Array => {
    const frame = encodeRequest(1, { kind: "reset" });
    patch(viewOf(frame));
    return frame;
  };
  it("tells whether an answer is wanted", () => {
    expect(decodeHeader(header((view) => view.setUint32(8, 0x10, true)))).toMatchObject({ noReply: true });
  });
  it("has a size within bounds, one of two types, and an errno that exists", () => {
    for (const size of [0, HEADER_BYTES - 1, TRANSFER_BYTES_MAX + 8193, 0xffff_ffff])
      expect(decodeHeader(header((view) => view.setUint32(4, size, true)))).toHaveProperty("reason");
    expect(decodeHeader(header((view) => view.setUint32(8, 2, true)))).toHaveProperty("reason");
    for (const errno of [0, 4096]) {
      const failed = header((view) => {
        view.setUint32(8, 0x21, true);
        view.setUint32(12, errno, true);
      });
      expect(decodeHeader(failed)).toHaveProperty("reason");
    }
  });
});

describe("a body that disagrees with itself", () => {
  it("is refused when it is a write, since the frame was cut wrongly", () => {
    for (const wrong of [3, 5]) {
      const frame = encodeRequest(1, { kind: "mig-data-write", data: new Uint8Array(4) });
      viewOf(frame).setUint32(HEADER_BYTES, 64, true);
      viewOf(frame).setUint32(HEADER_BYTES + 4, wrong, true);
      expect(refusal(decodeRequest(frame))).toMatch(/with 4/);
    }
  });
  it("is a short read when a reply is longer than its size: libvfio-user sends what was asked for", () => {
    const frame = encodeReply(1, { kind: "mig-data-read", data: new Uint8Array(64).fill(7) });
    viewOf(frame).setUint32(HEADER_BYTES + 4, 10, true);
    expect(decodeReply(frame)).toEqual({ kind: "mig-data-read", data: new Uint8Array(10).fill(7) });
    viewOf(frame).setUint32(HEADER_BYTES + 4, 65, true);
    expect(refusal(decodeReply(frame))).toMatch(/65 bytes/);
  });
  it("is refused as a question larger than a transfer", () => {
    const frame = encodeRequest(1, { kind: "mig-data-read", size: TRANSFER_BYTES_MAX + 1 });
    expect(refusal(decodeRequest(frame))).toMatch(/1048577/);
  });
});
