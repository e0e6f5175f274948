import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Guest, launchTestQemu, QemuDriver, type TestQemu, type TestQemuOptions } from "@godwit/guest";
import * as Effect from "effect/Effect";

/** Small, so that a test's two guests fit anywhere. */
export const MEMORY_BYTES = 32 * 1024 * 1024;

/** A QEMU and its guest as the driver reaches it. */
export interface Side {
  readonly qemu: TestQemu;
  readonly guest: Guest;
}

/** A directory of its own for one test; goes with the scope. */
export const scratch = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "godwit-interop-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true })),
);

/** Starts a QEMU that writes all its memory about ten times a second, and opens it with the driver. */
export const startSide = (directory: string, options: Partial<TestQemuOptions> = {}) =>
  Effect.gen(function* () {
    const qemu = yield* launchTestQemu({
      // RAM files of all tests lie in one directory.
      name: directory.slice(-6),
      directory,
      memoryBytes: MEMORY_BYTES,
      role: "source",
      ...options,
      program: { burstPages: 800, ...options.program },
    });
    const guest = yield* QemuDriver.open(qemu.spec);
    return { qemu, guest } satisfies Side;
  });

/** A guest that has run for a while, and a destination that waits for it. */
export const startPair = (directory: string, options: Partial<TestQemuOptions> = {}) =>
  Effect.gen(function* () {
    const source = yield* startSide(directory, options);
    const destination = yield* startSide(directory, { ...options, role: "destination" });
    yield* source.qemu.awaitSerial((text) => text.includes("C"));
    return { source, destination };
  });

/** What godwit's other actors do for a running guest, at one go: the stopped guest's RAM becomes the destination's. */
export const moveRam = (from: Side, to: Side) => Effect.sync(() => copyFileSync(from.qemu.ramPath, to.qemu.ramPath));

export const readRam = (side: Side): Uint8Array => readFileSync(side.qemu.ramPath);

/** Returns when the guest has written `more` letters more than now: its vCPU runs and its timer ticks. */
export const awaitLife = (side: Side, more = 2) =>
  Effect.suspend(() => {
    const before = side.qemu.serial().length;
    return side.qemu.awaitSerial((text) => text.length >= before + more);
  });
