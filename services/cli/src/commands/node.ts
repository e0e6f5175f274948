import { hostname } from "node:os";
import { defaultCheckpointDirectory, defaultRuntimeDirectory, randomId, type Settings } from "@godwit/actor";
import { DEFAULT_WORKERS, runNode } from "@godwit/node";
import { type Incarnation, isSafeName, OWNERSHIP_BUCKET } from "@godwit/protocol";
import * as Telemetry from "@godwit/telemetry";
import * as Effect from "effect/Effect";
import { command, NO_OPERANDS } from "../arguments/command.ts";
import { DEVICE_HELP, deviceOption, withDevices } from "../arguments/device-argument.ts";
import { GUEST_HELP, guestOption, readGuest } from "../arguments/guest-argument.ts";
import { count, flag, text } from "../arguments/option.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { natsOptions, settingsOf } from "../connection.ts";
import { bringGuests } from "../host/guests.ts";
import { patientFabric } from "../host/patient-fabric.ts";
import { awaitMembers } from "../members.ts";
import { unforeseen } from "../reporting/failure.ts";

/** More processes than that serve nobody: a migration has at most 255 channels, and a host fewer cores. */
const WORKERS_MAX = 255;

export const node = command({
  operands: NO_OPERANDS,
  options: {
    name: text("NAME", "the node's name (default: this host's name)", { variable: "GODWIT_NODE" }),
    guest: guestOption,
    vfio: deviceOption,
    workers: count(DEFAULT_WORKERS, 1, WORKERS_MAX, "multifd workers, processes that send"),
    "runtime-dir": text(
      "DIRECTORY",
      "sockets and the registry of guests; private (default in $XDG_RUNTIME_DIR or /tmp)",
    ),
    "checkpoint-dir": text("DIRECTORY", "where checkpoints may lie (default in $XDG_STATE_HOME or ~/.local/state)"),
    "guest-dir": text("DIRECTORY", "memory of builtin guests; a tmpfs (default in /dev/shm)"),
    "require-encryption": flag("let no guest leave this node but with capability `encryption`"),
    ...natsOptions,
  },
  notes: () => `${GUEST_HELP}
${DEVICE_HELP}
Logs go to stderr (GODWIT_LOG_LEVEL, GODWIT_LOG_FORMAT). SIGTERM and Ctrl-C stop the actors orderly. A guest that arrived by a
migration stays, and is there again when the node of that name is started again.
`,
  run: ({ values }, report) => {
    const name = values.name ?? hostname();
    if (!isSafeName(name)) {
      throw new UsageError(
        `the node's name is ${JSON.stringify(name)}, not 1 to 64 letters, digits, dashes or underscores`,
      );
    }
    const guests = withDevices(values.guest.map(readGuest), values.vfio);
    const settings: Settings = {
      ...settingsOf(values),
      node: name,
      requireEncryption: values["require-encryption"],
      runtimeDirectory: values["runtime-dir"] ?? defaultRuntimeDirectory(name),
      guestDirectory: values["guest-dir"] ?? `/dev/shm/godwit-${process.getuid?.() ?? 0}/${name}`,
      checkpointDirectory: values["checkpoint-dir"] ?? defaultCheckpointDirectory(),
      incarnation: randomId() as Incarnation,
    };
    const { workers } = values;
    return Effect.gen(function* () {
      const fabric = yield* patientFabric(values, `godwit node ${name}`, "node", [OWNERSHIP_BUCKET]);
      const specs = yield* Effect.provide(bringGuests(settings, guests), fabric);
      const ready = Effect.gen(function* () {
        yield* awaitMembers([
          { role: "node", node: name },
          { role: "ram-sender", node: name },
          { role: "loader", node: name },
          { role: "vfio-agent", node: name },
          ...Array.from({ length: workers }, (_, id) => ({ role: "multifd-worker", node: name, id: String(id) })),
        ]);
        const names = specs.map((spec) => spec.name);
        report.answer(
          { node: name, nats: values.nats, workers, guests: names, "runtime-dir": settings.runtimeDirectory },
          `node ${name} is ready; its guests: ${names.join(", ") || "none"}\n`,
        );
        return yield* Effect.never;
      });
      const running = runNode(settings, { workers, guests: specs, log: "inherit", started: () => {} });
      return yield* Effect.raceFirst(Effect.mapError(running, unforeseen), ready).pipe(Effect.provide(fabric));
    }).pipe(Effect.scoped, Effect.provide(Telemetry.layer({ actor: "node", node: name })));
  },
});
