/** One migration under this coordinator: feeds its decisions with reports and carries out what they want. */
import { makeAlarm, makeEventLoop, type OwnershipRegister } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import {
  DestinationCommand,
  DestinationReport,
  fromError,
  isMalformed,
  type JsonCodec,
  json,
  MigrationEvent,
  SourceCommand,
  SourceReport,
  subjects,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import {
  infoOf,
  type Migration,
  type MigrationEffect,
  type MigrationEventIn,
  type StoredTerm,
  savedOf,
  step,
} from "./decisions/index.ts";
import type { Store } from "./store.ts";

/** How long the wait for a delivery receipt of a command may take, ms; the command itself is said again by its own clock. */
const COMMAND_TIMEOUT_MS = 1000;
const WAITING_REPORTS_MAX = 256;

const sourceCommands = json(SourceCommand);
const destinationCommands = json(DestinationCommand);
const sourceReports = json(SourceReport);
const destinationReports = json(DestinationReport);
const events = json(MigrationEvent);

export interface Session {
  readonly migration: Migration;
  readonly dispatch: (event: MigrationEventIn) => void;
  /** Waits for a step after which it holds. */
  readonly until: (holds: () => boolean) => Effect.Effect<void>;
}

export interface SessionTools {
  readonly store: Store;
  readonly register: OwnershipRegister;
  /** Told once, when the migration turned out to be another coordinator's: the session is to be closed. */
  readonly left: () => void;
}

/** Starts the session; it works until the scope ends. */
export const startSession = Effect.fnUntraced(function* (
  migration: Migration,
  tools: SessionTools,
): Effect.fn.Return<Session, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  const fork = (work: Effect.Effect<unknown>): void => void run(Effect.forkIn(work, scope));
  const waiting = new Set<() => void>();

  const dispatch = makeEventLoop<MigrationEventIn>((event) => {
    for (const effect of step(migration, event, Date.now())) perform(effect);
    for (const look of [...waiting]) look();
  });
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  yield* Effect.addFinalizer(() => Effect.sync(alarm.stop));
  const until: Session["until"] = (holds) =>
    Effect.callback<void>((resume) => {
      const look = (): void => {
        if (!holds()) return;
        waiting.delete(look);
        resume(Effect.void);
      };
      waiting.add(look);
      look();
      return Effect.sync(() => waiting.delete(look));
    });

  const send = (subject: string, bytes: Uint8Array): void =>
    fork(
      fabric.request(subject, bytes, { timeoutMs: COMMAND_TIMEOUT_MS }).pipe(
        Effect.catchTag("GodwitError", (error) =>
          Effect.andThen(
            Effect.logError(`a command was refused: ${error.message}`),
            Effect.sync(() => {
              if (error.code === "version-mismatch") dispatch({ _tag: "CommandRefused", failure: fromError(error) });
            }),
          ),
        ),
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
        return fork(
          Effect.map(tools.store.write(savedOf(migration, Date.now()), effect.revision), (outcome) =>
            dispatch({ _tag: "SaveAnswered", save: effect.save, outcome }),
          ),
        );
      case "ReadSaved":
        return fork(Effect.map(readSaved(tools.store, migration), (stored) => dispatch({ _tag: "SavedRead", stored })));
      case "Publish":
        return publish(effect.event);
      case "WakeAt":
        return alarm.wakeAt(effect.at);
      case "Leave":
        return tools.left();
    }
  };

  const publish = (event: MigrationEvent["event"]): void => {
    const info = infoOf(migration, Date.now());
    fabric.publish(subjects.event(migration), events.encode({ event, info }));
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

  /** Hands each report over; what is malformed, or of another migration, is dropped. */
  const hear = Effect.fnUntraced(function* <R extends SourceReport | DestinationReport>(
    subject: string,
    codec: JsonCodec<R>,
    toEvent: (report: R) => MigrationEventIn,
  ) {
    const subscription = yield* Effect.orDie(fabric.subscribe(subject, { capacity: WAITING_REPORTS_MAX }));
    const one = (data: Uint8Array): Effect.Effect<void> => {
      const report = codec.decode(data);
      if (isMalformed(report)) return Effect.logWarning(`a report was dropped: ${report.malformed}`);
      if (report.migration === migration.migration) dispatch(toEvent(report));
      return Effect.void;
    };
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.flatMap(subscription.takeAll, (messages) =>
          Effect.forEach(messages, ({ data }) => one(data), { discard: true }),
        ),
      ),
    );
  });
  yield* hear(subjects.sourceReport(migration), sourceReports, (report) => ({
    _tag: "SourceReported",
    report,
  }));
  yield* hear(subjects.destinationReport(migration), destinationReports, (report) => ({
    _tag: "DestinationReported",
    report,
  }));
  yield* watchLink(dispatch);
  dispatch({ _tag: "Tick" });
  return { migration, dispatch, until };
});

/** Whose the stored migration is. */
const readSaved = (store: Store, { migration }: Migration): Effect.Effect<StoredTerm | null | "Unknown"> =>
  store.read(migration).pipe(
    Effect.map((stored) => (stored === null ? null : { term: stored.saved.term, revision: stored.revision })),
    Effect.catch((error) => Effect.as(Effect.logWarning(`migrations bucket: ${error.message}`), "Unknown" as const)),
  );

/** While the link of this process is away it hears nobody, and others may think it dead. */
const watchLink = Effect.fnUntraced(function* (dispatch: Session["dispatch"]) {
  const fabric = yield* Fabric;
  const link = yield* fabric.link;
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(link.takeAll, (changes) => {
        const isChange = changes.some(
          (change) => change.plane === "control" && (change._tag === "Disconnected" || change._tag === "Reconnected"),
        );
        if (isChange) dispatch({ _tag: "LinkChanged" });
      }),
    ),
  );
});
