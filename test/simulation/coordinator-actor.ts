/** Replicas of the coordinator on the simulated network: the real decisions, a bucket that outlives them, and heartbeats among them. */
import * as Coordinator from "@godwit/coordinator/decisions";
import {
  type Capabilities,
  type DestinationReport,
  MIGRATIONS_BUCKET,
  PARAMETER_DEFAULTS,
  proposeCapabilities,
  type SourceReport,
  subjects,
} from "@godwit/protocol";
import { COORDINATORS, GUEST, MIGRATION, NODE_A, NODE_B, ROUTE } from "./names.ts";
import { readOwnership, writeOwnership } from "./ownership-register.ts";
import { between } from "./random-times.ts";
import type { Scene } from "./scene.ts";

/** As the fabric's presence has it, ms. */
const BEAT_MS = 200;
const SILENT_MS = 800;
/** Between two looks for migrations that nobody looks after, ms. */
const LOOK_MS = 400;
const BEATS = "coordinators.beat";

/** What the bucket really holds, for those who judge. */
export const savedTruth = ({ network }: Scene): Coordinator.SavedMigration | null =>
  (network.register(MIGRATIONS_BUCKET).truth(MIGRATION)?.value as Coordinator.SavedMigration | undefined) ?? null;

/** `begins`: this one is asked to migrate the guest; the others wait for its end. */
export const bootCoordinator = (scene: Scene, name: string, owner: string, begins: boolean): void => {
  const { network } = scene;
  const bucket = network.register(MIGRATIONS_BUCKET);
  const heardAt = new Map<string, number>();
  let mine: Coordinator.Migration | null = null;

  const open = (migration: Coordinator.Migration): void => {
    mine = migration;
    let wakeAt = Number.POSITIVE_INFINITY;
    const releases: Array<() => void> = [];
    const step = (event: Coordinator.MigrationEventIn): void => {
      for (const effect of Coordinator.step(migration, event, network.now())) perform(effect);
      scene.saw("coordinator", migration.phase._tag);
    };
    const perform = (effect: Coordinator.MigrationEffect): void => {
      switch (effect._tag) {
        case "ToSource":
          return network.send(name, subjects.source(NODE_A), effect.command);
        case "ToDestination":
          return network.send(name, subjects.destination(NODE_B), effect.command);
        case "ReadRecord":
          return readOwnership(network, name, 0, (entry) => step({ _tag: "RecordRead", entry }));
        case "WriteRecord":
          return writeOwnership(network, name, { ...effect, afterMs: 0 }, (outcome) =>
            step({ _tag: "RecordWritten", op: effect.record.op, outcome }),
          );
        case "Save":
          return write(Coordinator.savedOf(migration, network.now()), effect.revision, (outcome) =>
            step({ _tag: "SaveAnswered", save: effect.save, outcome }),
          );
        case "ReadSaved":
          return read((stored) =>
            step({
              _tag: "SavedRead",
              stored:
                stored === null || stored === "Unknown"
                  ? stored
                  : { term: stored.saved.term, revision: stored.revision },
            }),
          );
        case "Publish":
          return;
        case "Leave":
          mine = null;
          for (const release of releases) release();
          return;
        case "WakeAt":
          if (effect.at >= wakeAt) return;
          wakeAt = effect.at;
          network.timer(name, effect.at - network.now(), () => {
            if (wakeAt !== effect.at) return;
            wakeAt = Number.POSITIVE_INFINITY;
            step({ _tag: "Tick" });
          });
      }
    };
    releases.push(
      network.subscribe(name, subjects.sourceReport(ROUTE), (report) =>
        step({ _tag: "SourceReported", report: report as SourceReport }),
      ),
      network.subscribe(name, subjects.destinationReport(ROUTE), (report) =>
        step({ _tag: "DestinationReported", report: report as DestinationReport }),
      ),
      network.subscribe(name, "test.cancel", () => step({ _tag: "Cancel" })),
      network.subscribe(name, "test.start-postcopy", () => step({ _tag: "StartPostcopy" })),
      network.subscribe(name, "test.give-up", () => step({ _tag: "GiveUp" })),
      network.onLink(name, () => step({ _tag: "LinkChanged" })),
    );
    step({ _tag: "Tick" });
  };

  const write = (
    saved: Coordinator.SavedMigration,
    revision: number,
    then: (outcome: "Unknown" | "Lost" | { readonly revision: number }) => void,
  ): void =>
    bucket.compareAndSet(name, MIGRATION, saved, revision, (outcome) =>
      then(outcome._tag === "Won" ? { revision: outcome.revision } : outcome._tag),
    );
  const read = (then: (stored: Coordinator.StoredMigration | null | "Unknown") => void): void =>
    bucket.get(name, MIGRATION, (answer) => {
      if (answer._tag === "Failed") return then("Unknown");
      const { found } = answer;
      then(found === null ? null : { saved: found.value as Coordinator.SavedMigration, revision: found.revision });
    });

  const begin = (): void => {
    const migration = newMigration(scene, owner, 0);
    write(Coordinator.savedOf(migration, network.now()), 0, (outcome) => {
      // Not known: should it have landed, it is found as one of our own that we do not look after.
      if (typeof outcome === "object") open(newMigration(scene, owner, outcome.revision));
    });
  };
  const isAlive = (other: string): boolean =>
    other === owner || network.now() - (heardAt.get(other) ?? Number.NEGATIVE_INFINITY) < SILENT_MS;
  const look = (): void =>
    read((stored) => {
      if (stored === "Unknown") return;
      if (stored === null) return begins ? begin() : undefined;
      for (const orphan of Coordinator.orphansOf([stored], owner, isAlive, () => mine !== null)) {
        const saved = Coordinator.takenOver(orphan.saved, owner);
        write(saved, orphan.revision, (outcome) => {
          if (typeof outcome === "object" && mine === null)
            open(Coordinator.adopt({ saved, revision: outcome.revision }, network.now()));
        });
      }
    });
  const repeat = (everyMs: number, what: () => void): void => {
    network.timer(name, everyMs, () => {
      what();
      repeat(everyMs, what);
    });
  };

  network.subscribe(name, BEATS, (incarnation) => void heardAt.set(incarnation as string, network.now()));
  repeat(BEAT_MS, () => network.send(name, BEATS, owner));
  if (begins) begin();
  network.timer(name, SILENT_MS + between(network, 0, LOOK_MS), () => repeat(LOOK_MS, look));
};

const newMigration = (scene: Scene, owner: string, revision: number): Coordinator.Migration => {
  const now = scene.network.now();
  return Coordinator.makeMigration({
    migration: MIGRATION,
    guest: GUEST,
    source: NODE_A,
    destination: NODE_B,
    parameters: {
      ...PARAMETER_DEFAULTS,
      "multifd-channels": 3,
      // No switchover keeps a downtime of 0, so that the first round does not converge.
      ...(scene.postcopy ? { "downtime-limit": 0, "postcopy-after-rounds": 1 } : {}),
      "max-bandwidth": 0,
      // A short one is often not kept, so that guests are taken back.
      "switchover-deadline": scene.switchoverDeadlineMs,
      "migration-deadline": MIGRATION_DEADLINE_MS,
    },
    capabilities: proposeCapabilities({
      verify: scene.verify,
      "postcopy-ram": scene.postcopy,
      "postcopy-preempt": scene.postcopy,
    }) as Capabilities,
    term: 1,
    owner,
    revision,
    attempt: 1,
    startedAt: now,
    now,
    phase: { _tag: "Claiming" },
  });
};
const MIGRATION_DEADLINE_MS = 60_000;

/** The first replica is the one that is asked. */
export const isAsked = (name: string): boolean => name === COORDINATORS[0];
