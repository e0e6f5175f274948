/** The launcher of a host: builtin guests and their devices are its children, and of nobody who may have to be restarted. */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { folderNeed, type Settings, serveHealth } from "@godwit/actor";
import { GUEST_PROGRAM } from "@godwit/guest";
import { serveLauncher } from "@godwit/host";
import * as Telemetry from "@godwit/telemetry";
import { DEVICE_PROGRAM } from "@godwit/vfio";
import * as Effect from "effect/Effect";

/** Serves until it is interrupted. */
export const runLauncher = (settings: Settings, socket: string): Effect.Effect<never, unknown> =>
  Effect.gen(function* () {
    yield* Effect.acquireRelease(
      Effect.tryPromise(() => {
        mkdirSync(dirname(socket), { recursive: true, mode: 0o700 });
        return serveLauncher(socket, [GUEST_PROGRAM, DEVICE_PROGRAM]);
      }),
      (server) => Effect.sync(() => server.close()),
    );
    const { node, incarnation, runtimeDirectory, guestDirectory } = settings;
    const member = { role: "launcher", node, id: "0", incarnation };
    yield* serveHealth(runtimeDirectory, member, [folderNeed(dirname(socket)), folderNeed(guestDirectory)]);
    yield* Effect.logInfo(`launcher ready on ${socket}`);
    return yield* Effect.never;
  }).pipe(Effect.scoped, Effect.provide(Telemetry.layer({ actor: "launcher", node: settings.node })));
