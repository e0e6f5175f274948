import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
import {
  destinationSealing,
  readSealing,
  removeSealing,
  removeSourceSealings,
  removeSourceSealingsBut,
  sourceSealing,
  UNSEALED,
  writeSealing,
} from "./sealing-file.ts";

const MIGRATION = "0123456789abcdef";
const SEALED = { cipher: "aes-256-gcm", key: Buffer.alloc(32, 9) } as const;

let runtime: string;
beforeEach(() => {
  runtime = mkdtempSync("/dev/shm/godwit-sealing-");
});
afterEach(() => rmSync(runtime, { recursive: true, force: true }));

describe("the file that says how an attempt is sealed", () => {
  it.each([sourceSealing, destinationSealing])(
    "comes out as it went in, and is for this user's eyes only",
    (pathOf) => {
      const path = pathOf(runtime, MIGRATION, 3);
      for (const sealing of [SEALED, UNSEALED, SEALED]) {
        writeSealing(path, sealing);
        assert.deepEqual(readSealing(path), sealing);
      }
      assert.strictEqual(statSync(path).mode & 0o777, 0o600);
      assert.strictEqual(statSync(dirname(path)).mode & 0o777, 0o700);
      removeSealing(path);
      removeSealing(path);
      assert.deepStrictEqual(readdirSync(dirname(path)), []);
    },
  );

  it("is never taken for the word that nothing is sealed, when it is not there or not whole", () => {
    const path = sourceSealing(runtime, MIGRATION, 3);
    assert.throws(() => readSealing(path), /ENOENT/);
    writeSealing(path, UNSEALED);
    for (const text of ["", "{", "{}", "null", '{"cipher":"aes-256-gcm"}', '{"cipher":"aes-256-gcm","key":"00"}']) {
      writeFileSync(path, text);
      assert.throws(() => readSealing(path), /does not say how packets are sealed/);
    }
  });

  it("goes with all that a former life has left, but not while its migration is at work", () => {
    const [kept, gone] = [MIGRATION, "f".repeat(16)].map((id) => sourceSealing(runtime, id, 1));
    removeSourceSealingsBut(join(runtime, "none"), new Set());
    writeSealing(kept!, SEALED);
    writeSealing(gone!, SEALED);
    removeSourceSealingsBut(runtime, new Set([MIGRATION]));
    assert.isTrue(existsSync(kept!));
    assert.isFalse(existsSync(gone!));
    const epochs = [1, 2, 10].map((epoch) => sourceSealing(runtime, MIGRATION, epoch));
    for (const path of epochs) writeSealing(path, SEALED);
    removeSourceSealings(runtime, "f".repeat(16), 10);
    removeSourceSealings(runtime, MIGRATION, 2);
    assert.deepStrictEqual(
      epochs.map((path) => existsSync(path)),
      [false, false, true],
    );
  });
});
