/** The migrations that this coordinator owns: begun here, or taken over. */
import type { OwnershipRegister } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
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
} from "./decisions/index.ts";
import { ACTOR } from "./replicas.ts";
import { type Session, startSession } from "./session.ts";
import type { Store } from "./store.ts";

export interface Sessions {
  readonly find: (migration: string) => Session | undefined;
  readonly all: () => ReadonlyArray<Session>;
  readonly open: (migration: Migration) => Effect.Effect<void>;
  /** A migration whose begin was refused, because it could not be written down: should that write land after all, it is undone. */
  readonly refuse: (migration: Migration) => void;
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
  const refused = new Set<string>();

  const open = Effect.fnUntraced(function* (migration: Migration) {
    const own = yield* Scope.fork(scope);
    const left = (): void => {
      sessions.delete(migration.migration);
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

  return {
    find: (migration) => sessions.get(migration),
    all: () => [...sessions.values()],
    open,
    refuse: ({ migration }) => void refused.add(migration),
    takeOver: (isAlive) =>
      store.list.pipe(
        Effect.map((stored) => orphansOf(stored, self, isAlive, (migration) => sessions.has(migration))),
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
