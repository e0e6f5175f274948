/** A QEMU that waits takes a checkpoint by itself: mapped-ram is its own format, and its threads read the pages to their places. */
import { GodwitError } from "@godwit/protocol";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { beginIncoming, migrationEnding, settled } from "./device-state.ts";
import { asFailure, failure, qmpFailure } from "./failure.ts";
import { type QemuSpec, qemuLogTail } from "./launch.ts";
import { withMigrationSettings } from "./migration-settings.ts";
import { connectQmp, type Qmp } from "./qmp.ts";

/** A guest of a terabyte from a disk of 500 MB/s. */
const LOAD_TIMEOUT: Duration.Input = "40 minutes";
const LOAD = "load the checkpoint";

const Capabilities = Schema.Array(Schema.Struct({ capability: Schema.String }));

export interface CheckpointSource {
  readonly path: string;
  /** Where the stream begins, bytes. */
  readonly start: number;
  readonly channels: number;
  /** Past the page cache. */
  readonly direct: boolean;
}

/**
 * Loads memory and devices into a QEMU that waits in `inmigrate`; it is stopped afterwards. QEMU must be able to open the file. After
 * a failure this QEMU is of no further use.
 */
export const loadQemuCheckpoint = (spec: QemuSpec, source: CheckpointSource): Effect.Effect<void, GodwitError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const qmp = yield* connectQmp(spec.qmp).pipe(Effect.mapError(qmpFailure(LOAD)));
      yield* requireMappedRam(qmp);
      const { path, start, channels, direct } = source;
      const settings = {
        capabilities: new Set(["mapped-ram", "multifd", "events"]),
        parameters: { "multifd-channels": channels, ...(direct ? { "direct-io": true } : {}) },
      };
      const load = Effect.gen(function* () {
        const ending = yield* migrationEnding(qmp, LOAD);
        yield* beginIncoming(qmp, start === 0 ? `file:${path}` : `file:${path},offset=${start}`);
        yield* ending;
        yield* settled(qmp);
      });
      yield* withMigrationSettings(qmp, settings, Effect.scoped(load));
    }),
  ).pipe(
    Effect.mapError(asFailure(LOAD)),
    Effect.mapError((error) => {
      // QEMU's own answer is "Input/output error" where its log names the device.
      const tail = qemuLogTail(spec);
      return tail === "" ? error : failure(error.code, error.step, `${error.reason}; its log ends with: ${tail}`);
    }),
    Effect.timeoutOrElse({
      duration: LOAD_TIMEOUT,
      orElse: () => Effect.fail(failure("checkpoint-failed", LOAD, `QEMU did not end it within ${LOAD_TIMEOUT}`)),
    }),
  );

const requireMappedRam = (qmp: Qmp): Effect.Effect<void, GodwitError> =>
  qmp.execute("query-migrate-capabilities", Capabilities).pipe(
    Effect.mapError(qmpFailure(LOAD)),
    Effect.flatMap((found) =>
      found.some(({ capability }) => capability === "mapped-ram")
        ? Effect.void
        : Effect.fail(
            new GodwitError({
              code: "not-supported",
              actor: "node",
              step: LOAD,
              reason: `QEMU ${qmp.version.major}.${qmp.version.minor} has no mapped-ram, which came with 9.0`,
            }),
          ),
    ),
  );
