import { createReadStream, createWriteStream, existsSync, linkSync, rmSync, statSync } from "node:fs";
import { createConnection } from "node:net";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { ignoresShared, MalformedCheckpoint } from "@godwit/checkpoint/qemu-stream";
import type { GodwitError } from "@godwit/protocol";
import * as Cause from "effect/Cause";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Queue from "effect/Queue";
import * as Schedule from "effect/Schedule";
import * as Schema from "effect/Schema";
import type * as Scope from "effect/Scope";
import { asFailure, failure, localFailure, qmpFailure } from "./failure.ts";
import {
  DEVICE_STATE,
  type MigrationSettings,
  PLAIN_STREAM,
  type PutBack,
  withMigrationSettings,
} from "./migration-settings.ts";
import type { Qmp } from "./qmp.ts";
import { QmpError } from "./qmp-error.ts";
import { listenOnce, rendezvousPath } from "./rendezvous.ts";
import { MigrationInfo, migrationIsUnderWay, QemuStatus } from "./run-state.ts";

/**
 * Moves a QEMU's device state out of it and into it: QEMU's own migration stream, over a unix socket, with x-ignore-shared,
 * which leaves out the RAM that lies in files, or (of a checkpoint) as a plain stream in which its pages are never sent.
 * Firmware and video memory, which lie in no file, travel in the stream.
 */

/** The most a device state may have, bytes: with more, RAM travels in it, and the guest stands still for seconds. */
const DEVICE_STATE_BYTES_MAX = 2 ** 30;
/** How long saving or loading may take. A plain PC takes 10 ms; video memory and slow disks to flush add to it. */
const DEVICE_DEVICE_TIMEOUT: Duration.Input = "30 seconds";
/** How long QEMU may take to end a migration that was cancelled, and to settle after one that ended. */
const SETTLE_TIMEOUT: Duration.Input = "5 seconds";
/** How long QEMU may take to say why it broke the feeding off. */
const LAST_WORD: Duration.Input = "2 seconds";
/** Only the owner reads what was a guest's processor and devices. */
const FILE_MODE = 0o600;
/** `migrate-incoming` takes `exit-on-error` from this version on; before, a QEMU that cannot load ends. */
const EXIT_ON_ERROR_SINCE = { major: 9, minor: 1 };

const SAVE = "save the device state";
const LOAD = "load the device state";

const MigrationEvent = Schema.Struct({ status: Schema.String });
const isMigrationEvent = Schema.is(MigrationEvent);

/**
 * Writes the device state of a stopped QEMU into a new file at `path`, and returns its length, bytes. The file appears last,
 * when all of it is there. Afterwards QEMU is in `postmigrate` and can go on, but not be saved again before it did. `settings`: whether
 * its migration is set for that already.
 */
export const saveDeviceState = (
  qmp: Qmp,
  path: string,
  settings: "to be changed" | "changed",
): Effect.Effect<number, GodwitError> =>
  Effect.gen(function* () {
    // Before QEMU gives away what it gives once.
    if (existsSync(path)) return yield* failure("device-state-failed", SAVE, `${path} exists already`);
    const partial = `${path}.partial`;
    const removePartial = Effect.sync(() => rmSync(partial, { force: true }));
    yield* removePartial;
    yield* Effect.addFinalizer(() => removePartial);
    const receiving = receiveInto(qmp, partial);
    yield* settings === "changed" ? receiving : withMigrationSettings(qmp, DEVICE_STATE, receiving);
    // link, not rename: it refuses to replace what is there.
    return yield* Effect.try({
      try: () => {
        linkSync(partial, path);
        return statSync(path).size;
      },
      catch: localFailure(SAVE),
    });
  }).pipe(Effect.scoped, Effect.mapError(asFailure(SAVE)));

const receiveInto = (qmp: Qmp, partial: string): Effect.Effect<void, QmpError | GodwitError> =>
  Effect.gen(function* () {
    const ending = yield* migrationEnding(qmp, SAVE);
    const socket = yield* rendezvousPath(qmp).pipe(Effect.mapError(localFailure(SAVE)));
    const listener = yield* listenOnce(socket, qmp.peer).pipe(Effect.mapError(localFailure(SAVE)));
    const receive = Effect.flatMap(listener.connection, (connection) =>
      streaming(SAVE, (signal) =>
        pipeline(connection, lengthLimit(), createWriteStream(partial, { flags: "wx", mode: FILE_MODE }), { signal }),
      ),
    );
    yield* qmp.execute("migrate", Schema.Unknown, { uri: `unix:${socket}` }).pipe(
      // Both must say so: the status that all was sent, the stream's end that all came. A failure leaves nobody connected.
      Effect.andThen(Effect.all([ending, receive], { concurrency: "unbounded" })),
      Effect.onError((cause) => (isRefusal(cause) ? Effect.void : cancelMigration(qmp))),
    );
    yield* settled(qmp);
  }).pipe(Effect.scoped, withinTime(SAVE));

/** A `migrate` that QEMU refused is none of ours to cancel. */
const isRefusal = (cause: Cause.Cause<QmpError | GodwitError>): boolean => {
  const error = Cause.squash(cause);
  return error instanceof QmpError && error.kind === "refused";
};

/**
 * Feeds the device state at `path` to a QEMU that waits in `inmigrate`, with its RAM in place. It is stopped afterwards. After a
 * failure this QEMU is of no further use: an incoming migration can be started once in a process' life.
 */
export const loadDeviceState = (qmp: Qmp, path: string, putBack: PutBack): Effect.Effect<void, GodwitError> =>
  Effect.gen(function* () {
    const feeding = Effect.gen(function* () {
      const ending = yield* migrationEnding(qmp, LOAD);
      const socket = yield* rendezvousPath(qmp).pipe(Effect.mapError(localFailure(LOAD)));
      yield* beginIncoming(qmp, `unix:${socket}`);
      // QEMU's word decides: it stops reading as soon as it has enough, or fails, and both break the feeding off.
      const brokenOff = streaming(LOAD, (signal) =>
        pipeline(createReadStream(path), createConnection(socket), { signal }),
      ).pipe(
        Effect.andThen(Effect.never),
        Effect.catch((error) => Effect.delay(Effect.fail(error), LAST_WORD)),
      );
      yield* Effect.raceFirst(ending, brokenOff);
      yield* settled(qmp);
    }).pipe(Effect.scoped, withinTime(LOAD));
    yield* withMigrationSettings(qmp, yield* settingsFor(path), feeding, putBack);
  }).pipe(Effect.mapError(asFailure(LOAD)));

/** Lets a QEMU that waits take a migration from `uri`, and stay stopped and alive whatever comes of it. */
export const beginIncoming = (qmp: Qmp, uri: string): Effect.Effect<void, QmpError> =>
  Effect.gen(function* () {
    // In `inmigrate` this means: do not start by yourself, whatever the stream says of the source.
    yield* qmp.execute("stop", Schema.Unknown);
    const { major, minor } = qmp.version;
    const staysOnError =
      major > EXIT_ON_ERROR_SINCE.major || (major === EXIT_ON_ERROR_SINCE.major && minor >= EXIT_ON_ERROR_SINCE.minor);
    yield* qmp.execute("migrate-incoming", Schema.Unknown, {
      uri,
      ...(staysOnError ? { "exit-on-error": false } : {}),
    });
  });

/** Subscribes now; the result returns when the migration has completed, and fails with QEMU's reason when it has not. */
export const migrationEnding = (
  qmp: Qmp,
  step: string,
): Effect.Effect<Effect.Effect<void, GodwitError>, never, Scope.Scope> =>
  Effect.map(qmp.events("MIGRATION"), (events) =>
    Effect.gen(function* () {
      for (;;) {
        const event = yield* Queue.take(events).pipe(Effect.mapError(qmpFailure(step)));
        if (!isMigrationEvent(event)) continue;
        if (event.status === "completed") return;
        if (event.status !== "failed" && event.status !== "cancelled") continue;
        const info = yield* qmp.execute("query-migrate", MigrationInfo).pipe(Effect.mapError(qmpFailure(step)));
        return yield* failure("device-state-failed", step, info["error-desc"] ?? `QEMU says ${event.status}`);
      }
    }),
  );

/** QEMU tells that a migration has ended shortly before its run state follows; no event says when it did. */
export const settled = (qmp: Qmp): Effect.Effect<void, GodwitError> =>
  qmp.execute("query-status", QemuStatus).pipe(
    Effect.mapError(qmpFailure("settle")),
    Effect.repeat({
      while: ({ status }) => status === "finish-migrate" || status === "inmigrate",
      schedule: Schedule.spaced("1 millis"),
    }),
    Effect.timeoutOrElse({
      duration: SETTLE_TIMEOUT,
      orElse: () =>
        Effect.fail(failure("guest-failed", "settle", "QEMU completed the migration, but does not leave it")),
    }),
    Effect.asVoid,
  );

/** Ends a save that will not be completed, so that the guest can go on. */
const cancelMigration = (qmp: Qmp): Effect.Effect<void> =>
  qmp.execute("migrate_cancel", Schema.Unknown).pipe(
    Effect.andThen(
      qmp
        .execute("query-migrate", MigrationInfo)
        .pipe(Effect.repeat({ while: migrationIsUnderWay, schedule: Schedule.spaced("5 millis") })),
    ),
    Effect.timeout(SETTLE_TIMEOUT),
    Effect.catch((error) => Effect.logWarning(`the migration that failed could not be cancelled: ${error.message}`)),
    Effect.asVoid,
  );

/** Looks at the stream before QEMU does, which takes one that was written with other capabilities than its own for damaged, and no other one then. */
const settingsFor = (path: string): Effect.Effect<MigrationSettings, GodwitError> =>
  Effect.try({
    try: () => (ignoresShared(path) ? DEVICE_STATE : PLAIN_STREAM),
    catch: (cause) =>
      cause instanceof MalformedCheckpoint
        ? failure("device-state-failed", LOAD, `${path} holds no QEMU device state: ${cause.message}`)
        : localFailure(LOAD)(cause),
  });

const lengthLimit = (): Transform => {
  let bytes = 0;
  return new Transform({
    transform: (chunk: Buffer, _encoding, done) => {
      bytes += chunk.length;
      if (bytes <= DEVICE_STATE_BYTES_MAX) done(null, chunk);
      else done(new Error(`the device state has more than ${DEVICE_STATE_BYTES_MAX} bytes`));
    },
  });
};

const streaming = (step: string, run: (signal: AbortSignal) => Promise<void>): Effect.Effect<void, GodwitError> =>
  Effect.tryPromise({ try: run, catch: localFailure(step) });

const withinTime = (step: string) =>
  Effect.timeoutOrElse({
    duration: DEVICE_DEVICE_TIMEOUT,
    orElse: () =>
      Effect.fail(failure("device-state-failed", step, `QEMU did not end it within ${DEVICE_DEVICE_TIMEOUT}`)),
  });
