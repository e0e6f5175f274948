import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { afterAll, assert, describe, it } from "vitest";
import {
  decodeDeviceState,
  deviceStateBytesMax,
  encodeDeviceState,
  readDeviceState,
  writeDeviceState,
} from "./device-state.ts";
import { Refusal } from "./refusal.ts";
import { emptyLedger, type VcpuState } from "./vcpus.ts";

const MEMORY_BYTES = 2 ** 20;
const PAGES = MEMORY_BYTES / 4096;

const state = (): VcpuState => {
  const ledger = emptyLedger(PAGES);
  for (let page = 0; page < PAGES; page++) ledger[page] = 2 ** 32 - 1 - page * 7919;
  return {
    workload: {
      seed: 4_000_000_000,
      vcpus: 2,
      dirtyRateBytesPerSecond: 12_345_678,
      workingSetBytes: 65_536,
      mix: { zero: 10, compressible: 20, random: 70 },
    },
    positions: [17, 2 ** 40],
    ledger,
  };
};

const encoded = (): Buffer => encodeDeviceState(state(), MEMORY_BYTES);

/** A file that was changed by somebody who knows about the checksum. */
const forged = (change: (file: Buffer) => Buffer | undefined): Buffer => {
  const original = encoded();
  const file = change(original) ?? original;
  file.writeUInt32LE(crc32(file.subarray(16)), 12);
  return file;
};

const forgedHeader = (change: (header: Record<string, unknown>) => void): Buffer =>
  forged((file) => {
    const end = 20 + file.readUInt32LE(16);
    const header = JSON.parse(file.toString("utf8", 20, end));
    change(header);
    const bytes = Buffer.from(JSON.stringify(header));
    file.writeUInt32LE(bytes.length, 16);
    return Buffer.concat([file.subarray(0, 20), bytes, file.subarray(end)]);
  });

const refused = (file: Buffer, reason: RegExp): void => {
  let thrown: unknown;
  try {
    decodeDeviceState(file, MEMORY_BYTES);
  } catch (cause) {
    thrown = cause;
  }
  assert.instanceOf(thrown, Refusal);
  assert.strictEqual(thrown.code, "device-state-failed");
  assert.match(thrown.message, reason);
};

describe("the device state of a builtin guest", () => {
  it("comes back as it was saved", () => {
    assert.deepStrictEqual(decodeDeviceState(encoded(), MEMORY_BYTES), state());
  });

  it("knows no pages but those of vCPUs: a guest whose memory is nearly all its devices' stays small", () => {
    const memoryBytes = 2 ** 40;
    const { workload } = state();
    const sparse = { ...state(), workload: { ...workload, dmaWindowBytes: memoryBytes - MEMORY_BYTES } };
    const file = encodeDeviceState(sparse, memoryBytes);
    assert.isBelow(file.length, 4 * PAGES + 1024);
    assert.deepStrictEqual(decodeDeviceState(file, memoryBytes), sparse);
  });

  it("stays below its limit, whatever the ledger holds", () => {
    const random = state();
    for (let page = 0; page < PAGES; page++) random.ledger[page] = Math.floor(Math.random() * 2 ** 32);
    assert.isBelow(encodeDeviceState(random, MEMORY_BYTES).length, deviceStateBytesMax(MEMORY_BYTES));
  });

  it("is refused when one bit of it is wrong, wherever", () => {
    const file = encoded();
    for (let at = 0; at < file.length; at++) {
      const damaged = Buffer.from(file);
      damaged[at]! ^= 1 << (at % 8);
      refused(damaged, /damaged|wrong magic|version/);
    }
  });

  it("is refused when it ends early", () => {
    for (const length of [0, 1, 19, 20, 100]) refused(encoded().subarray(0, length), /ends after|damaged/);
  });

  it("is refused before decoding when it is too large", () => {
    refused(Buffer.alloc(deviceStateBytesMax(MEMORY_BYTES) + 1), /more than the/);
  });

  it("is refused when it is of another version, machine or memory size", () => {
    refused(
      forged((file) => void file.writeUInt32LE(2, 8)),
      /format version 2/,
    );
    refused(
      forgedHeader((header) => {
        header["machine"] = "builtin-2";
      }),
      /builtin-2/,
    );
    refused(
      forgedHeader((header) => {
        header["memoryBytes"] = MEMORY_BYTES * 2;
      }),
      /2097152/,
    );
  });

  it("is refused when its header makes no sense", () => {
    refused(
      forged((file) => void file.writeUInt32LE(1_000_000, 16)),
      /header of 1000000/,
    );
    refused(
      forged((file) => void file.writeUInt32LE(16_000, 16)),
      /header of 16000/,
    );
    refused(
      forgedHeader((header) => {
        header["positions"] = [1];
      }),
      /no position/,
    );
    refused(
      forgedHeader((header) => {
        header["positions"] = [1, -1];
      }),
      /no position/,
    );
    refused(
      forgedHeader((header) => {
        header["workload"] = { ...(header["workload"] as object), vcpus: 1e9 };
      }),
      /vcpus is 1000000000/,
    );
  });

  it("is refused when its ledger has another length, or is none", () => {
    const ledgerOf = (pages: number): Buffer => {
      const donor = encodeDeviceState({ ...state(), ledger: emptyLedger(pages) }, MEMORY_BYTES);
      return donor.subarray(20 + donor.readUInt32LE(16));
    };
    const withLedger = (ledger: Buffer): Buffer =>
      forged((file) => Buffer.concat([file.subarray(0, 20 + file.readUInt32LE(16)), ledger]));
    refused(withLedger(ledgerOf(PAGES - 1)), /ledger has 1020 bytes/);
    // A small file that would unfold into much more than the guest's ledger.
    refused(withLedger(ledgerOf(PAGES * 16)), /cannot be decompressed/);
    refused(withLedger(Buffer.from("not zlib")), /cannot be decompressed/);
  });
});

describe("a device state file", () => {
  const directory = mkdtempSync(join(tmpdir(), "godwit-device-state-"));
  afterAll(() => rmSync(directory, { recursive: true }));

  it("is written and read back, and never written over another file", () => {
    const path = join(directory, "state");
    const content = encoded();
    assert.strictEqual(writeDeviceState(path, content), content.length);
    assert.isTrue(readDeviceState(path, MEMORY_BYTES).equals(content));
    assert.throws(() => writeDeviceState(path, content), /EEXIST/);
    assert.isTrue(readDeviceState(path, MEMORY_BYTES).equals(content));
  });

  it("is refused by its size before it is read, and when it is no file", () => {
    const path = join(directory, "large");
    writeFileSync(path, Buffer.alloc(deviceStateBytesMax(MEMORY_BYTES) + 1));
    assert.throws(() => readDeviceState(path, MEMORY_BYTES), /more than the/);
    assert.throws(() => readDeviceState(directory, MEMORY_BYTES), /not a file/);
  });
});
