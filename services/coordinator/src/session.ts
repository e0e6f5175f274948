/** One migration under this coordinator: feeds its decisions with reports and carries out what they want. */
import { makeAlarm, makeEventLoop, type OwnershipRegister } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import {
  DestinationCommand,
  DestinationReport,
  isMalformed,
  json,
  MigrationEvent,
  SourceCommand,
  SourceReport,
  subjects,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";
import {
  infoOf,
  type Migration,
  type MigrationEffect,
  type MigrationEventIn,
  type SavedMigration,
  step,
} from "./decisions/index.ts";
import type { Store } from "./store.ts";

/** How long the wait for a delivery receipt of a command may take, ms; the command itself is said again by its own clock. */
const COMMAND_TIMEOUT_MS = 1000;
const WAITING_REPORTS_MAX = 256;
/** A write of the migrations bucket is tried again so often, with this pause: a leader change takes seconds. */
const SAVE_AGAIN = { schedule: Schedule.spaced("250 millis"), times: 40 };

const sourceCommands = json(SourceCommand);
const destinationCommands = json(DestinationCommand);
const sourceReports = json(SourceReport);
const destinationReports = json(DestinationReport);
const events = json(MigrationEvent);

export interface Session {
  readonly migration: Migration;
  readonly dispatch: (event: MigrationEventIn) => void;
}

export const savedOf = (migration: Migration, owner: string, now: number): SavedMigration => ({
  term: migration.term,
  owner,
  attempt: migration.attempt,
  startedAt: migration.startedAt,
  parameters: migration.parameters,
  capabilities: migration.capabilities,
  failure: migration.failure,
  info: infoOf(migration, now),
});

/** Starts the session with the revision its migration was stored at; it works until the scope ends. */
export const startSession = Effect.fnUntraced(function* (
  migration: Migration,
  tools: {
    readonly store: Store;
    readonly register: OwnershipRegister;
    readonly owner: string;
    readonly revision: number;
  },
): Effect.fn.Return<Session, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  const fork = (work: Effect.Effect<unknown>): void => void run(Effect.forkIn(work, scope));
  let revision = tools.revision;
  let fenced = false;

  const dispatch = makeEventLoop<MigrationEventIn>((event) => {
    if (fenced) return;
    for (const effect of step(migration, event, Date.now())) perform(effect);
  });
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  yield* Effect.addFinalizer(() => Effect.sync(alarm.stop));

  const send = (subject: string, bytes: Uint8Array): void =>
    fork(
      fabric.request(subject, bytes, { timeoutMs: COMMAND_TIMEOUT_MS }).pipe(
        Effect.catchTag("GodwitError", (error) => Effect.logError(`a command was refused: ${error.message}`)),
        // Nobody there, or no answer: the decisions notice the silence, and say it again.
        Effect.ignore,
      ),
    );

  const perform = (effect: MigrationEffect): void => {
    switch (effect._tag) {
      case "ToSource":
        return send(subjects.source(migration.source), sourceCommands.encode(effect.command));
      case "ToDestination":
        return send(subjects.destination(migration.destination), destinationCommands.encode(effect.command));
      case "ReadRecord":
        return fork(
          Effect.map(tools.register.read(migration.guest), (entry) => dispatch({ _tag: "RecordRead", entry })),
        );
      case "WriteRecord":
        return fork(
          Effect.map(tools.register.write(migration.guest, effect.record, effect.revision), (outcome) =>
            dispatch({ _tag: "RecordWritten", op: effect.record.op, outcome }),
          ),
        );
      case "Save":
        return fork(save);
      case "Publish":
        return publish(effect.event);
      case "WakeAt":
        return alarm.wakeAt(effect.at);
    }
  };

  const publish = (event: MigrationEvent["event"]): void => {
    const info = infoOf(migration, Date.now());
    fabric.publish(subjects.event(migration.migration), events.encode({ event, info }));
    if (event === "PROGRESS") return;
    fork(
      Effect.annotateLogs(
        Effect.logInfo(event === "MIGRATION" ? `status ${info.status}` : `pass ${info.ram?.["dirty-sync-count"]}`),
        {
          migration: migration.migration,
          guest: migration.guest,
          ...(info["error-desc"] === undefined ? {} : { error: info["error-desc"] }),
        },
      ),
    );
  };

  /** Writes what is true now. A coordinator that finds a newer writer has been replaced, and keeps still from then on. */
  const save = Effect.suspend(() => tools.store.write(savedOf(migration, tools.owner, Date.now()), revision)).pipe(
    Effect.flatMap((won) => {
      if (won !== null) {
        revision = won;
        return Effect.void;
      }
      return Effect.flatMap(tools.store.read(migration.migration), (stored) => {
        if (stored === null) return Effect.fail("not saved" as const);
        if (stored.saved.owner !== tools.owner) {
          fenced = true;
          return Effect.logWarning("another coordinator has taken this migration over");
        }
        revision = stored.revision;
        return Effect.fail("not saved" as const);
      });
    }),
    Effect.retry(SAVE_AGAIN),
    Effect.catch(() =>
      Effect.logError("the migration could not be saved; it goes on, and another coordinator would not know its end"),
    ),
    Effect.annotateLogs({ migration: migration.migration }),
  );

  /** Both sides hear the ending, so that they show the same one (R10). */
  const conclude = (): void => {
    const info = infoOf(migration, Date.now());
    const shared = { _tag: "Conclude", migration: info.migration, term: migration.term, info } as const;
    send(subjects.source(migration.source), sourceCommands.encode(shared));
    send(subjects.destination(migration.destination), destinationCommands.encode(shared));
  };

  const source = yield* Effect.orDie(
    fabric.subscribe(subjects.sourceReport(migration.migration), { capacity: WAITING_REPORTS_MAX }),
  );
  const destination = yield* Effect.orDie(
    fabric.subscribe(subjects.destinationReport(migration.migration), { capacity: WAITING_REPORTS_MAX }),
  );
  const hear = <R extends SourceReport | DestinationReport>(
    bytes: Uint8Array,
    codec: { readonly decode: (bytes: Uint8Array) => R | { readonly malformed: string } },
    toEvent: (report: R) => MigrationEventIn,
  ): Effect.Effect<void> => {
    const report = codec.decode(bytes);
    if (isMalformed(report)) return Effect.logWarning(`a malformed report was dropped: ${report.malformed}`);
    if (report.migration !== migration.migration) return Effect.void;
    const wasOver = migration.phase._tag === "Ended";
    dispatch(toEvent(report as R));
    if (migration.phase._tag !== "Ended") return Effect.void;
    const last = report.phase === "completed" || report.phase === "failed" || report.phase === "running";
    if (!wasOver || last) conclude();
    return Effect.void;
  };
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.flatMap(source.takeAll, (messages) =>
        Effect.forEach(
          messages,
          ({ data }) => hear(data, sourceReports, (report) => ({ _tag: "SourceReported", report })),
          { discard: true },
        ),
      ),
    ),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.flatMap(destination.takeAll, (messages) =>
        Effect.forEach(
          messages,
          ({ data }) => hear(data, destinationReports, (report) => ({ _tag: "DestinationReported", report })),
          {
            discard: true,
          },
        ),
      ),
    ),
  );
  dispatch({ _tag: "Tick" });
  return { migration, dispatch };
});
