/** Requests about one migration: answered here when it is ours, else passed on to its owner, or held until there is one. */
import { Fabric, type RequestError } from "@godwit/fabric";
import {
  GodwitError,
  isEnded,
  isInPostcopy,
  json,
  MigrationInfo,
  OwnerRequest,
  subjects,
  toError,
  tuneParameters,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { infoOf, isSaved, type MigrationEventIn, obstacleToGivingUp, type StoredMigration } from "./decisions/index.ts";
import { ACTOR } from "./replicas.ts";
import type { Session } from "./session.ts";
import type { Sessions } from "./sessions.ts";
import type { Store } from "./store.ts";

/** An owner that does not answer in this time is dead or asleep, ms: it is missed within a second (SILENT_MS), and taken over from. */
const OWNER_TIMEOUT_MS = 1500;
/** How long an owner waits for the migrations bucket before it says so, ms: less than whoever asks it waits. */
const SAVED_WITHIN_MS = 1200;
/** How long a request waits for an owner, ms: less than the command line waits for its answer. */
const FIND_OWNER_MS = 6000;
const OWNER_AGAIN_MS = 100;

const ownerRequest = json(OwnerRequest);
const migrationInfo = json(MigrationInfo);

export const refuse = (code: GodwitError["code"], step: string, reason: string) =>
  new GodwitError({ code, actor: ACTOR, step, reason });

const STEPS = {
  Query: "find the migration",
  Cancel: "cancel",
  Continue: "continue",
  StartPostcopy: "start postcopy",
  Pause: "pause",
  Recover: "recover",
  GiveUp: "give up",
  SetParameters: "set parameters",
} as const satisfies Record<OwnerRequest["_tag"], string>;

const notTheOwner = (request: OwnerRequest) =>
  refuse("not-the-owner", STEPS[request._tag], `migration ${request.migration} is another coordinator's`);

export const unreachable = (step: string) => (error: { readonly message: string }) =>
  refuse("nats-unreachable", step, `the migrations bucket cannot be read: ${error.message}`);

/** The word of an operator, as far as the migration is in a state for it. */
const eventOf = (
  { migration }: Session,
  request: Exclude<OwnerRequest, { _tag: "Query" }>,
): MigrationEventIn | GodwitError => {
  const { status } = migration;
  const step = STEPS[request._tag];
  if (isEnded(status)) return refuse("wrong-state", step, `migration ${migration.migration} is ${status}`);
  switch (request._tag) {
    case "Cancel":
      if (isInPostcopy(status)) return refuse("wrong-state", step, "Postcopy migration in progress, cannot cancel.");
      return { _tag: "Cancel" };
    case "StartPostcopy":
      if (!migration.capabilities["postcopy-ram"])
        return refuse(
          "wrong-state",
          step,
          "Enable postcopy with capability 'postcopy-ram' before the start of migration",
        );
      return { _tag: "StartPostcopy" };
    case "Pause":
    case "Recover":
      if (isInPostcopy(status)) return { _tag: "SayToFetching", word: request._tag };
      return refuse(
        "wrong-state",
        step,
        request._tag === "Pause"
          ? `migrate-pause is currently only supported during postcopy-active or postcopy-recover state, not ${status}`
          : `Migrate recover can only be run when postcopy is paused, not in state ${status}`,
      );
    case "GiveUp": {
      const obstacle = migration.givingUp === null ? obstacleToGivingUp(migration, Date.now()) : null;
      return obstacle === null ? { _tag: "GiveUp" } : refuse("wrong-state", step, obstacle);
    }
    case "Continue":
      // Told already, perhaps by the one who asks, whose first answer was lost with a coordinator.
      if (status === "pre-switchover" || migration.continuedAttempt === migration.attempt) return { _tag: "Continue" };
      return refuse("wrong-state", step, `Migration not in expected state: ${status}`);
    case "SetParameters": {
      const parameters = tuneParameters(migration.parameters, request.parameters);
      return "code" in parameters ? toError(parameters) : { _tag: "Tune", parameters };
    }
  }
};

/** It is known whose the migration is, and what state it is in, as far as the request depends on that. */
const isSettled = ({ tenure, phase }: Session["migration"], request: OwnerRequest): boolean => {
  if (tenure.doubt !== null || phase._tag === "Ending") return false;
  // The status that a predecessor saved may be older than the one that the operator has seen.
  return request._tag !== "Continue" || phase._tag !== "Adopting";
};

/** The owner's answer; what it was asked for has been saved by then, so that a successor does it as well. Fails with `not-the-owner`. */
export const answer = Effect.fnUntraced(function* (session: Session, request: OwnerRequest) {
  const { migration } = session;
  const isReplaced = (): boolean => migration.phase._tag === "Replaced";
  // Whoever has just woken up learns by this step that it must ask whether it still is the owner.
  session.dispatch({ _tag: "Tick" });
  const settled = yield* session
    .until(() => isReplaced() || isSettled(migration, request))
    .pipe(Effect.timeoutOption(SAVED_WITHIN_MS));
  if (isReplaced()) return yield* notTheOwner(request);
  if (request._tag === "Query") return infoOf(migration, Date.now());
  const step = STEPS[request._tag];
  if (settled._tag === "None") {
    const reason = "it is not known at present how the migration stands: the migrations bucket or its source is silent";
    return yield* refuse("nats-unreachable", step, reason);
  }
  const unsaved = refuse("nats-unreachable", step, "the migrations bucket cannot be written at present; ask again");
  const event = eventOf(session, request);
  if (event instanceof GodwitError) return yield* event;
  session.dispatch(event);
  yield* session
    .until(() => isReplaced() || isSaved(migration))
    .pipe(Effect.timeoutOrElse({ duration: SAVED_WITHIN_MS, orElse: () => Effect.fail(unsaved) }));
  if (isReplaced()) return yield* notTheOwner(request);
  return infoOf(migration, Date.now());
});

export interface Owner {
  /** Answered by the owner, whichever coordinator that is; waits while there is none, within a bound. */
  readonly ask: (request: OwnerRequest) => Effect.Effect<MigrationInfo, GodwitError>;
  /** What is true of a stored migration now, or, when its owner cannot be asked, what was saved. */
  readonly current: (stored: StoredMigration) => Effect.Effect<MigrationInfo>;
  /** What another coordinator passes on; refused when the migration is not ours. */
  readonly passedOn: (data: Uint8Array) => Effect.Effect<Uint8Array, GodwitError>;
}

export const makeOwner = Effect.fnUntraced(function* (self: string, store: Store, sessions: Sessions) {
  const fabric = yield* Fabric;

  const passOn = (incarnation: string, request: OwnerRequest): Effect.Effect<MigrationInfo, RequestError> =>
    fabric
      .request(subjects.owner(incarnation), ownerRequest.encode(request), { timeoutMs: OWNER_TIMEOUT_MS })
      .pipe(Effect.flatMap((bytes) => migrationInfo.decodeEffect(bytes, ACTOR)));

  /** Null: whoever is the owner, nobody answers for it now. */
  const ofOwner = (
    stored: StoredMigration | null,
    request: OwnerRequest,
  ): Effect.Effect<MigrationInfo | null, GodwitError> => {
    const session = sessions.find(request.migration);
    const asked: Effect.Effect<MigrationInfo | null, RequestError> =
      session !== undefined
        ? answer(session, request)
        : stored === null || stored.saved.owner === self
          ? Effect.succeed(null)
          : passOn(stored.saved.owner, request);
    return Effect.catch(asked, (error) =>
      error._tag === "GodwitError" && error.code !== "not-the-owner" ? Effect.fail(error) : Effect.succeed(null),
    );
  };

  const ask: Owner["ask"] = Effect.fnUntraced(function* (request) {
    const step = STEPS[request._tag];
    const deadline = Date.now() + FIND_OWNER_MS;
    let seen: StoredMigration | null = null;
    while (Date.now() < deadline) {
      if (sessions.find(request.migration) === undefined) {
        const stored = yield* Effect.option(store.read(request.migration));
        if (stored._tag === "Some") {
          seen = stored.value;
          if (seen === null)
            return yield* refuse("no-such-migration", step, `migration ${request.migration} is not known`);
          const { info } = seen.saved;
          if (isEnded(info.status)) {
            if (request._tag === "Query") return info;
            return yield* refuse("wrong-state", step, `migration ${info.migration} is ${info.status}`);
          }
        }
      }
      const answered = yield* ofOwner(seen, request);
      if (answered !== null) return answered;
      yield* Effect.sleep(OWNER_AGAIN_MS);
    }
    if (seen !== null && request._tag === "Query") return seen.saved.info;
    const reason = `no coordinator answers for migration ${request.migration}; it goes on, and is taken over when one can reach NATS JetStream`;
    return yield* refuse("not-the-owner", step, reason);
  });

  const current: Owner["current"] = (stored) => {
    const { info } = stored.saved;
    if (isEnded(info.status)) return Effect.succeed(info);
    return ofOwner(stored, { _tag: "Query", migration: info.migration }).pipe(
      Effect.map((answered) => answered ?? info),
      Effect.catch(() => Effect.succeed(info)),
    );
  };

  const passedOn: Owner["passedOn"] = (data) =>
    ownerRequest.decodeEffect(data, ACTOR).pipe(
      Effect.flatMap((request) => {
        const session = sessions.find(request.migration);
        return session === undefined ? Effect.fail(notTheOwner(request)) : answer(session, request);
      }),
      Effect.map(migrationInfo.encode),
    );

  const owner: Owner = { ask, current, passedOn };
  return owner;
});
