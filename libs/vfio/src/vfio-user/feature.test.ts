import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../../protocol/src/mutation.conformance.ts";
import { DEVICE_STATES } from "../state-machine.ts";
import { type Capabilities, clientCapabilities, decodeCapabilities, serverCapabilities } from "./capabilities.ts";
import {
  decodeDeviceState,
  decodeLoggingReport,
  decodeLoggingStart,
  decodeMigrationFeatures,
  decodeU64,
  deviceStateData,
  LOGGED_RANGES_MAX,
  loggingReportData,
  loggingStartData,
  migrationFeaturesData,
  reportBitmapBytes,
  u64Data,
} from "./feature.ts";
import { viewOf } from "./header.ts";

const page = fc.constantFrom(1, 4096, 2 ** 21);
const range = fc.record({ iova: fc.nat(2 ** 31), length: fc.integer({ min: 1, max: 2 ** 31 - 1 }) });

describe("the data of a feature", () => {
  it("comes out as it went in", () => {
    for (const state of DEVICE_STATES) expect(decodeDeviceState(deviceStateData(state))).toEqual({ state });
    const features = fc.record({ stopCopy: fc.boolean(), p2p: fc.boolean(), preCopy: fc.boolean() });
    fc.assert(
      fc.property(features, (value) => {
        expect(decodeMigrationFeatures(migrationFeaturesData(value))).toEqual(value);
      }),
    );
    fc.assert(
      fc.property(fc.maxSafeNat(), (value) => {
        expect(decodeU64(u64Data(value))).toEqual({ value });
      }),
    );
    const start = fc.record({ pageBytes: page, ranges: fc.array(range, { maxLength: LOGGED_RANGES_MAX }) });
    fc.assert(
      fc.property(start, (value) => {
        expect(decodeLoggingStart(loggingStartData(value))).toEqual(value);
      }),
    );
    fc.assert(
      fc.property(range, page, fc.uint8Array({ maxLength: 64 }), (where, pageBytes, bitmap) => {
        const value = { ...where, pageBytes, bitmap };
        expect(decodeLoggingReport(loggingReportData(value))).toEqual(value);
      }),
    );
  });

  it("never makes a decoder throw, whatever its bytes", () => {
    const random = seededRandom(9);
    const decoders = [decodeDeviceState, decodeMigrationFeatures, decodeU64, decodeLoggingStart, decodeLoggingReport];
    for (let run = 0; run < 50_000; run++) {
      const data = Uint8Array.from({ length: Math.floor(random() * 48) }, () =>
        random() < 0.7 ? 0 : Math.floor(random() * 256),
      );
      for (const decode of decoders) decode(data);
    }
  });

  it("names a state that exists, and pages and ranges that have a size", () => {
    const state = deviceStateData("STOP");
    viewOf(state).setUint32(0, 8, true);
    expect(decodeDeviceState(state)).toHaveProperty("reason");
    expect(decodeLoggingStart(loggingStartData({ pageBytes: 0, ranges: [] }))).toHaveProperty("reason");
    const many = Array.from({ length: LOGGED_RANGES_MAX + 1 }, () => ({ iova: 0, length: 1 }));
    expect(decodeLoggingStart(loggingStartData({ pageBytes: 4096, ranges: many }))).toHaveProperty("reason");
    const report = { iova: 2 ** 53 - 4096, length: 4096, pageBytes: 4096, bitmap: new Uint8Array(0) };
    expect(decodeLoggingReport(loggingReportData(report))).toHaveProperty("reason");
  });

  it("has whole words in a bitmap", () => {
    expect([1, 64 * 4096, 64 * 4096 + 1].map((length) => reportBitmapBytes(length, 4096))).toEqual([8, 8, 16]);
  });
});

describe("the capabilities in VERSION", () => {
  const ours: Capabilities = { transferBytesMax: 65_536, wholeFrames: true, precopyInfo: true };
  it("of a server of ours say what vfio-user has no word for", () => {
    expect(decodeCapabilities(serverCapabilities(ours))).toEqual(ours);
  });
  it("that are missing are those of the protocol, as with libvfio-user", () => {
    const plain = { transferBytesMax: 1024 * 1024, wholeFrames: false, precopyInfo: false };
    const foreign =
      '{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,"migration":{"pgsize":4096},"godwit":true}}';
    for (const text of ["", "{}", '{"capabilities":{}}', foreign, clientCapabilities()])
      expect(decodeCapabilities(text)).toEqual(plain);
  });
  it("never let a frame be larger than its limit", () => {
    expect(decodeCapabilities('{"capabilities":{"max_data_xfer_size":1e9}}')).toMatchObject({
      transferBytesMax: 1024 * 1024,
    });
  });
  it("are refused when they mean nothing", () => {
    for (const text of ["{", "[]", "7", '{"capabilities":7}', '{"capabilities":{"max_data_xfer_size":"1"}}'])
      expect(decodeCapabilities(text)).toHaveProperty("reason");
    for (const bytes of [0, -1, 1.5, 1023])
      expect(decodeCapabilities(`{"capabilities":{"max_data_xfer_size":${bytes}}}`)).toHaveProperty("reason");
  });
});
