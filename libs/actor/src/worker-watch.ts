/** What concerns whoever hands work to the multifd workers of a node: which of them are there, and the link by which it reaches them. */
import { Fabric, type Member } from "@godwit/fabric";
import { parseVersion, versionRefusal } from "@godwit/protocol";
import * as Effect from "effect/Effect";

export type WorkerNews =
  | { readonly _tag: "WorkerUp"; readonly worker: string }
  | { readonly _tag: "WorkerDown"; readonly worker: string; readonly why: string }
  /** What was on its way when the link broke may be lost, and nobody says so. */
  | { readonly _tag: "LinkRestored" }
  /** NATS does not let this actor do what it wants. */
  | { readonly _tag: "Denied"; readonly reason: string };

/** Why a worker gets no work; null when it does: it would understand none. */
const refusalOf = ({ node, id, protocol }: Member): string | null => {
  const theirs = parseVersion(protocol);
  return theirs === null ? null : versionRefusal(`multifd worker ${id} of node ${node}`, theirs);
};

/**
 * Tells of the workers that are there already, in one go, then of changes, until the scope ends; `settled` after each go. One that was
 * restarted, with another incarnation, is down before it is up.
 */
export const watchWorkers = Effect.fnUntraced(function* (
  node: string,
  tell: (news: WorkerNews) => Effect.Effect<unknown>,
  settled: Effect.Effect<unknown> = Effect.void,
) {
  const fabric = yield* Fabric;
  const members = yield* fabric.watch({ role: "multifd-worker", node });
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.gen(function* () {
        for (const event of yield* members.takeAll) {
          const worker = event.member.id;
          const refusal = event._tag === "Up" ? refusalOf(event.member) : null;
          if (refusal !== null) {
            yield* Effect.logError(`${refusal}; it gets no work`);
            continue;
          }
          yield* tell(
            event._tag === "Up" ? { _tag: "WorkerUp", worker } : { _tag: "WorkerDown", worker, why: event.why },
          );
        }
        yield* settled;
      }),
    ),
  );
  const link = yield* fabric.link;
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.gen(function* () {
        for (const event of yield* link.takeAll) {
          if (event._tag === "Reconnected") yield* tell({ _tag: "LinkRestored" });
          if (event._tag === "Denied") yield* tell({ _tag: "Denied", reason: event.reason });
        }
      }),
    ),
  );
});
