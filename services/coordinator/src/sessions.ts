/** The migrations that this coordinator owns: begun here, or taken over. */
import type { OwnershipRegister } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import { DestinationCommand, type Incarnation, json, SourceCommand, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import {
  adopt,
  type Migration,
  orphansOf,
  type SavedMigration,
  type StoredMigration,
  takenOver,
  untoldOf,
} from "./decisions/index.ts";
import { ACTOR } from "./replicas.ts";
import { type Session, startSession } from "./session.ts";
import type { Store } from "./store.ts";

const sourceCommands = json(SourceCommand);
const destinationCommands = json(DestinationCommand);

export interface Sessions {
  readonly find: (migration: string) => Session | undefined;
  /**
   * Begins a migration once `firstSave` has written it down, and gives the revision. When that fails it is not begun; should the
   * write land after all, it is undone.
   */
  readonly begin: <E>(migration: Migration, firstSave: Effect.Effect<number, E>) => Effect.Effect<void, E>;
  /** Takes over every migration whose owner is gone; incomplete when that could not be tried, or its outcome is not known. */
  readonly takeOver: (isAlive: (owner: string) => boolean) => Effect.Effect<"complete" | "incomplete">;
}

export const makeSessions = Effect.fnUntraced(function* (
  self: string,
  store: Store,
  register: OwnershipRegister,
): Effect.fn.Return<Sessions, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<never>());
  const sessions = new Map<string, Session>();
  /** Written down, or about to be, and not yet open: no orphans. */
  const beginning = new Set<string>();
  const refused = new Set<string>();

  const open = Effect.fnUntraced(function* (migration: Migration) {
    const own = yield* Scope.fork(scope);
    const left = (): void => {
      if (sessions.get(migration.migration)?.migration === migration) sessions.delete(migration.migration);
      run(
        Effect.logWarning("another coordinator has taken this migration over").pipe(
          Effect.annotateLogs({ migration: migration.migration }),
          Effect.andThen(Scope.close(own, Exit.void)),
        ),
      );
    };
    const session = yield* startSession(migration, { store, register, left }).pipe(
      Effect.provideService(Fabric, fabric),
      Effect.provideService(Scope.Scope, own),
    );
    if (migration.phase._tag !== "Replaced") sessions.set(migration.migration, session);
  });

  const isMine = (migration: string): boolean => sessions.has(migration) || beginning.has(migration);

  const adoptOne = Effect.fnUntraced(function* ({ saved, revision }: StoredMigration) {
    const taken = takenOver(saved, self);
    const written = refused.has(saved.info.migration) ? undone(taken) : taken;
    const outcome = yield* store.write(written, revision);
    // Lost: another coordinator was faster, or the owner lives and saves; the next round shows it.
    if (outcome === "Unknown" || outcome === "Lost") return "incomplete" as const;
    yield* Effect.logInfo(`taking over migration ${saved.info.migration} under term ${written.term}`);
    yield* open(adopt({ saved: written, revision: outcome.revision }, Date.now()));
    return "complete" as const;
  });

  /** As its owner said it. Whoever heard it already hears it again; a word that is lost is said again in the next round. */
  const tellEnding = ({ info, term, owner }: SavedMigration): void => {
    const { migration, source, destination } = info;
    const conclusion = {
      _tag: "Conclude",
      migration,
      source,
      destination,
      term,
      coordinator: owner as Incarnation,
      info,
    } as const;
    fabric.publish(subjects.source(source), sourceCommands.encode(conclusion));
    fabric.publish(subjects.destination(destination), destinationCommands.encode(conclusion));
  };

  return {
    find: (migration) => sessions.get(migration),
    begin: (migration, firstSave) =>
      Effect.sync(() => beginning.add(migration.migration)).pipe(
        Effect.andThen(Effect.tapError(firstSave, () => Effect.sync(() => refused.add(migration.migration)))),
        Effect.flatMap((revision) => {
          migration.tenure.revision = revision;
          return open(migration);
        }),
        Effect.ensuring(Effect.sync(() => beginning.delete(migration.migration))),
      ),
    takeOver: (isAlive) =>
      store.list.pipe(
        Effect.tap((stored) => Effect.sync(() => untoldOf(stored, isAlive, Date.now()).forEach(tellEnding))),
        Effect.map((stored) => orphansOf(stored, self, isAlive, isMine)),
        Effect.flatMap((orphans) => Effect.forEach(orphans, adoptOne, { concurrency: 8 })),
        Effect.map((outcomes) => (outcomes.includes("incomplete") ? ("incomplete" as const) : ("complete" as const))),
        Effect.catch((error) =>
          Effect.as(Effect.logWarning(`migrations bucket: ${error.message}`), "incomplete" as const),
        ),
      ),
  };
});

const undone = (saved: SavedMigration): SavedMigration => ({
  ...saved,
  undoing: "failed",
  failure: {
    code: "nats-unreachable",
    actor: ACTOR,
    step: "begin a migration",
    reason: "it was refused when the migrations bucket could not be written",
  },
});
