/** A QEMU that runs and one that waits for it, both on this machine. */
import { launchTestQemu, type TestQemu } from "@godwit/guest";
import * as Effect from "effect/Effect";
import { claimFreeMemory } from "./free-memory.ts";
import { fillRandomly } from "./memory-images.ts";
import type { Testbed } from "./testbed.ts";

const MIB = 1024 ** 2;
/** The boot guest counts below this address and leaves everything above alone, bytes. */
export const COUNTED_BYTES = 16 * MIB;
/** At the end of RAM lie tables of the firmware, bytes. */
const FIRMWARE_BYTES = 2 * MIB;

export interface QemuPairOptions {
  /** Writes the memory that the guest leaves alone; default: random numbers. */
  readonly fill?: (path: string, fromByte: number, toByte: number) => void;
  /** What the destination's command line begins with; default: it runs here. */
  readonly enter?: ReadonlyArray<string>;
}

/** Starts a source that runs and a destination that waits, moves one to the other and sees that it lives there. */
export const withPair = <A, E>(
  testbed: Testbed,
  name: string,
  memoryBytes: number,
  move: (source: TestQemu, destination: TestQemu) => Effect.Effect<A, E>,
  { fill = fillRandomly, enter = [] }: QemuPairOptions = {},
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const options = {
        name,
        directory: testbed.directory,
        ramDirectory: testbed.memoryDirectory,
        memoryBytes,
        program: { endAddress: COUNTED_BYTES },
        // Threads have names then, and the vCPU's time can be told from the rest.
        moreOptions: ["-name", "debug-threads=on"],
      };
      const source = yield* launchTestQemu({ ...options, role: "source" });
      yield* source.awaitSerial((text) => text.includes("B"));
      fill(source.ramPath, COUNTED_BYTES, memoryBytes - FIRMWARE_BYTES);
      const destination = yield* launchTestQemu({ ...options, role: "destination", enter });
      claimFreeMemory(testbed.memoryDirectory, memoryBytes);
      const migration = yield* move(source, destination);
      yield* destination.awaitSerial((text) => text.length > 0);
      return migration;
    }),
  );
