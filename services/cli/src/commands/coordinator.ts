import { defaultRuntimeDirectory, randomId, type Settings } from "@godwit/actor";
import { supervise } from "@godwit/node";
import { type Incarnation, MIGRATIONS_BUCKET, OWNERSHIP_BUCKET } from "@godwit/protocol";
import * as Telemetry from "@godwit/telemetry";
import * as Effect from "effect/Effect";
import { command, NO_OPERANDS } from "../arguments/command.ts";
import { accessOf, natsOptions } from "../connection.ts";
import { nodeOfHost } from "../host/host-options.ts";
import { patientFabric } from "../host/patient-fabric.ts";
import { awaitMembers } from "../members.ts";

export const coordinator = command({
  operands: NO_OPERANDS,
  options: natsOptions,
  notes: () =>
    "Start it once or several times, anywhere: each migration has one coordinator, and another one takes over when it dies.\nIts state is in NATS (JetStream). Logs go to stderr.\n",
  run: ({ values }, report) => {
    // Only a label: coordinators are told apart by their incarnations.
    const label = nodeOfHost();
    const settings: Settings = {
      ...accessOf(values),
      node: label,
      runtimeDirectory: defaultRuntimeDirectory(label),
      guestDirectory: defaultRuntimeDirectory(label),
      checkpointDirectory: defaultRuntimeDirectory(label),
      incarnation: randomId() as Incarnation,
    };
    return Effect.gen(function* () {
      const fabric = yield* patientFabric(values, "godwit coordinator's supervisor", "coordinator", [
        OWNERSHIP_BUCKET,
        MIGRATIONS_BUCKET,
      ]);
      const ready = Effect.gen(function* () {
        yield* awaitMembers([{ role: "coordinator", node: label }]);
        report.answer({ coordinator: label, nats: values.nats }, "the coordinator is ready\n");
        return yield* Effect.never;
      });
      const running = supervise({ role: "coordinator", id: "0" }, settings, { log: "inherit", started: () => {} });
      return yield* Effect.raceFirst(running, ready).pipe(Effect.provide(fabric));
    }).pipe(Effect.scoped, Effect.provide(Telemetry.layer({ actor: "supervisor", node: label })));
  },
});
