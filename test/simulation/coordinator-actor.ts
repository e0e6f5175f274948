/** A coordinator on the simulated network. What it saves survives it; each life takes the migration over under a higher term. */
import * as Coordinator from "@godwit/coordinator/decisions";
import type { SimNetwork } from "@godwit/fabric/simulation";
import {
  type Capabilities,
  type DestinationReport,
  PARAMETER_DEFAULTS,
  proposeCapabilities,
  type SourceReport,
  subjects,
} from "@godwit/protocol";
import { GUEST, MIGRATION, NODE_A, NODE_B } from "./names.ts";
import { readOwnership, writeOwnership } from "./ownership-register.ts";
import { between } from "./random-times.ts";

const NAME = "coordinator";

/** What outlives a coordinator, as the migrations bucket does. */
export interface Saved {
  term: number;
  attempt: number;
  migration: Coordinator.Migration | null;
  ended: string | null;
}

export const bootCoordinator = (
  network: SimNetwork,
  saved: Saved,
  parameters: Partial<typeof PARAMETER_DEFAULTS>,
): void => {
  if (saved.ended !== null) return;
  saved.term++;
  const migration = Coordinator.makeMigration({
    migration: MIGRATION,
    guest: GUEST,
    source: NODE_A,
    destination: NODE_B,
    parameters: {
      ...PARAMETER_DEFAULTS,
      "multifd-channels": 3,
      "max-bandwidth": 0,
      "switchover-deadline": 3000,
      "migration-deadline": 60_000,
      ...parameters,
    },
    capabilities: proposeCapabilities({}) as Capabilities,
    term: saved.term,
    owner: NAME,
    revision: 0,
    attempt: saved.attempt,
    startedAt: network.now(),
    now: network.now(),
    phase: saved.term === 1 ? { _tag: "Claiming" } : { _tag: "Adopting" },
  });
  saved.migration = migration;
  let wakeAt = Number.POSITIVE_INFINITY;
  const step = (event: Coordinator.MigrationEventIn): void => {
    for (const effect of Coordinator.step(migration, event, network.now())) perform(effect);
  };
  const perform = (effect: Coordinator.MigrationEffect): void => {
    switch (effect._tag) {
      case "ToSource":
        return network.send(NAME, subjects.source(NODE_A), effect.command);
      case "ToDestination":
        return network.send(NAME, subjects.destination(NODE_B), effect.command);
      case "ReadRecord":
        return readOwnership(network, NAME, 0, (entry) => step({ _tag: "RecordRead", entry }));
      case "WriteRecord":
        return writeOwnership(network, NAME, { ...effect, afterMs: 0 }, (outcome) =>
          step({ _tag: "RecordWritten", op: effect.record.op, outcome }),
        );
      case "Save":
        saved.attempt = migration.attempt;
        if (migration.phase._tag === "Ending") saved.ended = migration.phase.status;
        network.timer(NAME, between(network, 0.1, 3), () =>
          step({ _tag: "SaveAnswered", save: effect.save, outcome: { revision: effect.revision + 1 } }),
        );
        return;
      case "ReadSaved":
      case "Publish":
      case "Leave":
        return;
      case "WakeAt":
        if (effect.at >= wakeAt) return;
        wakeAt = effect.at;
        network.timer(NAME, effect.at - network.now(), () => {
          if (wakeAt !== effect.at) return;
          wakeAt = Number.POSITIVE_INFINITY;
          step({ _tag: "Tick" });
        });
    }
  };
  network.subscribe(NAME, subjects.sourceReport(MIGRATION), (report) =>
    step({ _tag: "SourceReported", report: report as SourceReport }),
  );
  network.subscribe(NAME, subjects.destinationReport(MIGRATION), (report) =>
    step({ _tag: "DestinationReported", report: report as DestinationReport }),
  );
  network.subscribe(NAME, "test.cancel", () => step({ _tag: "Cancel" }));
  step({ _tag: "Tick" });
};
