/** Replicas of the coordinator on the simulated network: the real decisions, a bucket that outlives them, and heartbeats among them. */
import * as Coordinator from "@godwit/coordinator/decisions";
import type { SimNetwork } from "@godwit/fabric/simulation";
import {
  type Capabilities,
  type DestinationReport,
  MIGRATIONS_BUCKET,
  PARAMETER_DEFAULTS,
  proposeCapabilities,
  type SourceReport,
  subjects,
} from "@godwit/protocol";
import { COORDINATORS, NODE_A, NODE_B, PAGE_BYTES, word } from "./names.ts";
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
export const savedTruth = ({ network, migration }: Scene): Coordinator.SavedMigration | null =>
  (network.register(MIGRATIONS_BUCKET).truth(migration)?.value as Coordinator.SavedMigration | undefined) ?? null;

/** One process. */
interface Replica {
  readonly name: string;
  readonly owner: string;
  /** It is asked to migrate the guests; the others wait for its end. */
  readonly begins: boolean;
  readonly isAlive: (other: string) => boolean;
}

export const bootCoordinator = (
  scenes: ReadonlyArray<Scene>,
  { name, owner, begins }: Omit<Replica, "isAlive">,
): void => {
  const { network } = scenes[0]!;
  const heardAt = new Map<string, number>();
  const isAlive = (other: string): boolean =>
    other === owner || network.now() - (heardAt.get(other) ?? Number.NEGATIVE_INFINITY) < SILENT_MS;
  network.subscribe(name, BEATS, (incarnation) => void heardAt.set(incarnation as string, network.now()));
  repeat(network, name, BEAT_MS, () => network.send(name, BEATS, owner));
  for (const scene of scenes) lookAfter(scene, { name, owner, begins, isAlive });
};

const repeat = (network: SimNetwork, name: string, everyMs: number, what: () => void): void => {
  network.timer(name, everyMs, () => {
    what();
    repeat(network, name, everyMs, what);
  });
};

const lookAfter = (scene: Scene, { name, owner, begins, isAlive }: Replica): void => {
  const { network } = scene;
  const bucket = network.register(MIGRATIONS_BUCKET);
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
          return readOwnership(network, name, scene.name, 0, (entry) => step({ _tag: "RecordRead", entry }));
        case "WriteRecord":
          return writeOwnership(network, name, scene.name, { ...effect, afterMs: 0 }, (outcome) =>
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
      network.subscribe(name, subjects.sourceReport(scene.route), (report) =>
        step({ _tag: "SourceReported", report: report as SourceReport }),
      ),
      network.subscribe(name, subjects.destinationReport(scene.route), (report) =>
        step({ _tag: "DestinationReported", report: report as DestinationReport }),
      ),
      network.subscribe(name, word(scene.migration, "cancel"), () => step({ _tag: "Cancel" })),
      network.subscribe(name, word(scene.migration, "start-postcopy"), () => step({ _tag: "StartPostcopy" })),
      network.subscribe(name, word(scene.migration, "give-up"), () => step({ _tag: "GiveUp" })),
      network.subscribe(name, word(scene.migration, "let-go"), () => {
        const { parameters } = migration;
        const { "downtime-limit": limit } = PARAMETER_DEFAULTS;
        if (parameters["downtime-limit"] !== limit)
          step({ _tag: "Tune", parameters: { ...parameters, "downtime-limit": limit } });
      }),
      network.onLink(name, () => step({ _tag: "LinkChanged" })),
    );
    step({ _tag: "Tick" });
  };

  const write = (
    saved: Coordinator.SavedMigration,
    revision: number,
    then: (outcome: "Unknown" | "Lost" | { readonly revision: number }) => void,
  ): void =>
    bucket.compareAndSet(name, scene.migration, saved, revision, (outcome) =>
      then(outcome._tag === "Won" ? { revision: outcome.revision } : outcome._tag),
    );
  const read = (then: (stored: Coordinator.StoredMigration | null | "Unknown") => void): void =>
    bucket.get(name, scene.migration, (answer) => {
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
  if (begins) begin();
  network.timer(name, SILENT_MS + between(network, 0, LOOK_MS), () => repeat(network, name, LOOK_MS, look));
};

const newMigration = (scene: Scene, owner: string, revision: number): Coordinator.Migration => {
  const now = scene.network.now();
  return Coordinator.makeMigration({
    migration: scene.migration,
    guest: scene.name,
    source: NODE_A,
    destination: NODE_B,
    parameters: {
      ...PARAMETER_DEFAULTS,
      "multifd-channels": 3,
      // No switchover keeps a downtime of 0, so that the first round does not converge; deltas take three.
      ...(scene.postcopy ? { "downtime-limit": 0, "postcopy-after-rounds": scene.xbzrle ? 4 : 1 } : {}),
      ...(scene.xbzrle ? { "downtime-limit": 0 } : {}),
      "max-bandwidth": 0,
      // Fewer slots than pages, so that some want the same one.
      "xbzrle-cache-size": 256 * PAGE_BYTES,
      // A short one is often not kept, so that guests are taken back.
      "switchover-deadline": scene.switchoverDeadlineMs,
      "migration-deadline": MIGRATION_DEADLINE_MS,
    },
    capabilities: proposeCapabilities({
      verify: scene.verify,
      "postcopy-ram": scene.postcopy,
      "postcopy-preempt": scene.postcopy,
      xbzrle: scene.xbzrle,
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
