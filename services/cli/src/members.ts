/** Waits for actors to be there, by their presence: nothing is asked of one that cannot answer yet. */
import { Fabric, type Member } from "@godwit/fabric";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { fromFabric } from "./connection.ts";

/** An actor that is wanted; what is left out does not matter. */
export interface Wanted {
  readonly role: Member["role"];
  readonly node?: string;
  readonly id?: string;
}

/** How long all of them together may take, ms: a start takes about 1 s, and much longer on a host that is busy. */
const MEMBERS_MS = 60_000;

const isIt = (wanted: Wanted, member: Member): boolean =>
  wanted.role === member.role &&
  (wanted.node === undefined || wanted.node === member.node) &&
  (wanted.id === undefined || wanted.id === member.id);

const named = ({ role, node, id }: Wanted): string =>
  role + (id === undefined ? "" : ` ${id}`) + (node === undefined ? "" : ` of node ${node}`);

/** Fails with `internal` and the list of those that did not come. */
export const awaitMembers = (wanted: ReadonlyArray<Wanted>): Effect.Effect<void, GodwitError, Fabric> =>
  Effect.gen(function* () {
    const fabric = yield* Fabric;
    const present = new Map<string, Member>();
    const missing = () => wanted.filter((one) => ![...present.values()].some((member) => isIt(one, member)));
    const news = yield* fabric.watch({}).pipe(Effect.mapError(fromFabric));
    const all = Effect.gen(function* () {
      while (missing().length > 0) {
        for (const { _tag, member } of yield* news.takeAll.pipe(Effect.mapError(fromFabric))) {
          if (_tag === "Up") present.set(member.incarnation, member);
          else present.delete(member.incarnation);
        }
      }
    });
    yield* Effect.timeoutOrElse(all, {
      duration: MEMBERS_MS,
      orElse: () =>
        Effect.fail(
          new GodwitError({
            code: "internal",
            actor: "cli",
            step: "wait for the actors",
            reason: `after ${MEMBERS_MS} ms there is still no ${missing().map(named).join(", no ")}`,
          }),
        ),
    });
  }).pipe(Effect.scoped);
