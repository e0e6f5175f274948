import { type BuiltinDevice, openRegistry } from "@godwit/guest";
import { SHARED_MEMORY_DIRECTORY } from "@godwit/host";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Scope from "effect/Scope";
import { command, NO_OPERANDS } from "../arguments/command.ts";
import { GUEST_HELP, type GuestArgument, guestOption, readGuest } from "../arguments/guest-argument.ts";
import { count, textOr } from "../arguments/option.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { vfioOption } from "../arguments/vfio-argument.ts";
import { DESTINATION, openCluster, SOURCE } from "../demo/cluster.ts";
import { lookForRoom } from "../demo/room.ts";
import { onStage, type Stage } from "../demo/stage.ts";
import { bringGuests } from "../host/guests.ts";
import type { Report } from "../reporting/report.ts";

/** Where clients look for NATS unless told otherwise. */
const NATS_PORT = 4222;
const WORKERS = 2;
const NODES = [SOURCE, DESTINATION];
const GUEST = "vm1=builtin:memory=256MiB,dirty-rate=8MiB/s";

const memoryOf = (guest: GuestArgument): number => (guest.driver === "builtin" ? guest.options.memoryBytes : 0);

const withDevices = (guest: GuestArgument, devices: ReadonlyArray<BuiltinDevice>): GuestArgument =>
  guest.driver === "builtin" && devices.length > 0 ? { ...guest, options: { ...guest.options, devices } } : guest;

export const up = command({
  operands: NO_OPERANDS,
  options: {
    port: count(NATS_PORT, 0, 65_535, "TCP port of NATS on 127.0.0.1; 0: any that is free"),
    guest: { ...guestOption, what: "a guest of node a, may be repeated; see below", shownDefault: GUEST },
    vfio: { ...vfioOption, what: "simulated VFIO devices of the guest that is there without --guest" },
    "guest-dir": textOr("DIRECTORY", SHARED_MEMORY_DIRECTORY, "where memory of builtin guests lies; best a tmpfs"),
  },
  notes: () => `${GUEST_HELP}\nEverything ends with it, builtin guests included, and nothing of it is kept.\n`,
  run: ({ values }, report) => {
    const guests = values.guest.length > 0 ? values.guest.map(readGuest) : [withDevices(readGuest(GUEST), values.vfio)];
    if (values.guest.length > 0 && values.vfio.length > 0) {
      throw new UsageError(
        "--vfio is for the guest that is there without --guest",
        "write for example --guest vm1=builtin:memory=256MiB,vfio=2x300MB",
      );
    }
    const memoryBytes = guests.map(memoryOf).reduce((sum, bytes) => sum + bytes, 0);
    const directory = values["guest-dir"];
    const stage = { name: "up", guestRoot: directory, keepLog: false };
    return lookForRoom({ directory, memoryBytes, tracker: "auto", driver: "builtin" }, report).pipe(
      Effect.andThen(onStage(stage, report, (opened) => serve(opened, values.port, guests, report))),
    );
  },
});

const serve = (
  stage: Stage,
  port: number,
  guests: ReadonlyArray<GuestArgument>,
  report: Report,
): Effect.Effect<never, GodwitError, Scope.Scope> =>
  Effect.gen(function* () {
    const { cluster, onFabric } = yield* openCluster(stage, {
      port,
      nodes: NODES.map((name) => ({ name, workers: WORKERS, guests: [] })),
    }).pipe(Effect.mapError((error) => portTaken(port, error)));
    const settings = cluster.settingsOf(SOURCE);
    const scope = yield* Effect.scope;
    const specs = yield* onFabric(Effect.provideService(bringGuests(settings, guests), Scope.Scope, scope));
    const registry = openRegistry(settings.runtimeDirectory);
    for (const spec of specs) registry.put(spec);
    const names = specs.map(({ name }) => name);
    const option = cluster.url.endsWith(`:${NATS_PORT}`) ? "" : ` --nats ${cluster.url}`;
    report.answer(
      { nats: cluster.url, nodes: NODES, guests: names, "log-file": stage.logFile },
      [
        `NATS at ${cluster.url}, a coordinator, nodes ${NODES.join(" and ")}, guest ${names.join(", ")} at ${SOURCE}`,
        `the log of all actors: ${stage.logFile}`,
        "In another terminal (`npx godwit` in a clone):",
        ...names.slice(0, 1).map((name) => `  godwit migrate ${name} --to ${DESTINATION}${option}`),
        `  godwit guests${option}`,
        `  godwit status${option}`,
        "Ctrl-C stops everything.",
        "",
      ].join("\n"),
    );
    return yield* Effect.never;
  });

/** The likeliest failure of all, a NATS server that runs already, without the end of the new one's log. */
const portTaken = (port: number, error: GodwitError): GodwitError => {
  if (!error.reason.includes("address already in use")) return error;
  const reason = `TCP port ${port} of 127.0.0.1 is taken by another program; give --port 0 for any that is free`;
  return new GodwitError({ code: error.code, actor: error.actor, step: error.step, reason });
};
