/** QEMU's own migration, driven over QMP: what an operator would do with two monitors. */
import * as Effect from "effect/Effect";
import * as Queue from "effect/Queue";
import * as Schema from "effect/Schema";
import { connectQmp, type Qmp } from "../../libs/guest/src/qemu/qmp.ts";

/** QEMU's own figures, ms. */
export interface QemuMigration {
  readonly totalTime: number;
  readonly downtime: number;
}

const Address = Schema.Struct({ "socket-address": Schema.Array(Schema.Struct({ port: Schema.String })) });
const Finished = Schema.Struct({ status: Schema.String, "total-time": Schema.Number, downtime: Schema.Number });
const Event = Schema.Struct({ status: Schema.String });

const configure = (qmp: Qmp, { channels, downtimeLimit, compression = "none" }: QemuParameters) =>
  qmp
    .execute("migrate-set-capabilities", Schema.Unknown, {
      capabilities: ["multifd", "events"].map((capability) => ({ capability, state: true })),
    })
    .pipe(
      Effect.andThen(
        qmp.execute("migrate-set-parameters", Schema.Unknown, {
          "multifd-channels": channels,
          "max-bandwidth": 0,
          "downtime-limit": downtimeLimit,
          "multifd-compression": compression,
        }),
      ),
    );

export interface QemuParameters {
  readonly channels: number;
  /** ms */
  readonly downtimeLimit: number;
  /** Default none. */
  readonly compression?: "none" | "zstd";
  /** Where the destination listens; default loopback. */
  readonly address?: string;
}

/** Moves a guest from one QEMU to another that waits (`-incoming defer`), over TCP. The sockets are those of the monitors. */
export const migrateByQemu = (source: string, destination: string, parameters: QemuParameters) =>
  Effect.scoped(
    Effect.gen(function* () {
      const [from, to] = [yield* connectQmp(source), yield* connectQmp(destination)];
      for (const qmp of [from, to]) yield* configure(qmp, parameters);
      const arrived = yield* to.events("MIGRATION");
      const events = yield* from.events("MIGRATION");
      const { address = "127.0.0.1" } = parameters;
      yield* to.execute("migrate-incoming", Schema.Unknown, { uri: `tcp:${address}:0` });
      const { "socket-address": addresses } = yield* to.execute("query-migrate", Address);
      const port = addresses[0]?.port;
      if (port === undefined)
        return yield* Effect.fail(new Error("the destination QEMU does not say where it listens"));
      yield* from.execute("migrate", Schema.Unknown, { uri: `tcp:${address}:${port}` });
      yield* untilCompleted(events);
      yield* untilCompleted(arrived);
      const { "total-time": totalTime, downtime } = yield* from.execute("query-migrate", Finished);
      return { totalTime, downtime } satisfies QemuMigration;
    }),
  );

const saveSettings = (qmp: Qmp, channels: number) =>
  qmp
    .execute("migrate-set-capabilities", Schema.Unknown, {
      capabilities: ["mapped-ram", "multifd", "events"].map((capability) => ({ capability, state: true })),
    })
    .pipe(
      Effect.andThen(
        qmp.execute("migrate-set-parameters", Schema.Unknown, { "multifd-channels": channels, "max-bandwidth": 0 }),
      ),
    );

/** Stops the guest and saves it into a file with mapped-ram and multifd, as an operator would; ms. The file is in the page cache then. */
export const saveByQemu = (source: string, path: string, channels: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const qmp = yield* connectQmp(source);
      yield* qmp.execute("stop", Schema.Unknown);
      yield* saveSettings(qmp, channels);
      const events = yield* qmp.events("MIGRATION");
      const startedAt = performance.now();
      yield* qmp.execute("migrate", Schema.Unknown, { uri: `file:${path}` });
      yield* untilCompleted(events);
      return performance.now() - startedAt;
    }),
  );

/** Lets a guest go on that has given its state away. */
export const goOn = (source: string) =>
  Effect.scoped(Effect.flatMap(connectQmp(source), (qmp) => qmp.execute("cont", Schema.Unknown)));

/** Loads such a file into a QEMU that waits, and lets it run; ms. */
export const restoreByQemu = (destination: string, path: string, channels: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const qmp = yield* connectQmp(destination);
      yield* saveSettings(qmp, channels);
      const events = yield* qmp.events("MIGRATION");
      const startedAt = performance.now();
      yield* qmp.execute("migrate-incoming", Schema.Unknown, { uri: `file:${path}` });
      yield* untilCompleted(events);
      yield* qmp.execute("cont", Schema.Unknown);
      return performance.now() - startedAt;
    }),
  );

const untilCompleted = Effect.fnUntraced(function* (events: Queue.Dequeue<unknown, unknown>) {
  while (true) {
    const { status } = yield* Schema.decodeUnknownEffect(Event)(yield* Queue.take(events));
    if (status === "completed") return;
    if (status === "failed" || status === "cancelled")
      return yield* Effect.fail(new Error(`QEMU's migration ${status}`));
  }
});
