/** Two QEMUs with the boot guest: one that runs, one that waits with `-incoming defer`. */
import {
  BOOT_TICKS_PER_SECOND,
  launchTestQemu,
  QEMU_PROGRAM,
  type QemuSpec,
  qemuIsInstalled,
  type TestQemu,
} from "@godwit/guest";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { Stage } from "./stage.ts";

/** How long the guest may take to boot and to write all its memory once, beyond what its rate makes of it, ms. */
const BOOT_MS = 60_000;
const PAGE_BYTES = 4096;
/** What the guest writes after its first pass over all its memory. */
const FIRST_PASS_DONE = "B";

const failed = (code: GodwitError["code"], reason: string): GodwitError =>
  new GodwitError({ code, actor: "cli", step: "start QEMU", reason });

export const needQemu: Effect.Effect<void, GodwitError> = Effect.suspend(() =>
  qemuIsInstalled()
    ? Effect.void
    : Effect.fail(
        failed("not-supported", `${QEMU_PROGRAM} is not in PATH; install it: apt-get install qemu-system-x86`),
      ),
);

export interface QemuPair {
  readonly source: TestQemu;
  readonly destination: TestQemu & { readonly spec: QemuSpec };
}

/** Returns once the source has written all its memory once. Both are killed, and their files removed, at the scope's end. */
export const startPair = (
  stage: Stage,
  name: string,
  memoryBytes: number,
  dirtyRate: number,
): Effect.Effect<QemuPair, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    const shared = {
      name,
      directory: stage.directory,
      ramDirectory: stage.guestDirectory,
      memoryBytes,
      program: { burstPages: Math.max(1, Math.round(dirtyRate / PAGE_BYTES / BOOT_TICKS_PER_SECOND)) },
    };
    const [source, destination] = yield* Effect.all(
      [launchTestQemu({ ...shared, role: "source" }), launchTestQemu({ ...shared, role: "destination" })],
      { concurrency: 2 },
    );
    const limitMs = BOOT_MS + (2 * memoryBytes * 1000) / dirtyRate;
    yield* source
      .awaitSerial((text) => text.includes(FIRST_PASS_DONE))
      .pipe(
        Effect.timeoutOrElse({
          duration: limitMs,
          orElse: () =>
            Effect.fail(
              failed("guest-failed", `the guest did not boot and write its memory within ${Math.round(limitMs)} ms`),
            ),
        }),
      );
    return { source, destination };
  });
