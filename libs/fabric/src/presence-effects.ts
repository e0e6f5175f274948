import type * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { FabricError } from "./errors.ts";
import type { Fabric, Member, Plane, PresenceEvent } from "./fabric.ts";
import type { Inbox } from "./inbox.ts";
import { announceMember, invalidMember, type PresenceWire, publishExited, watchMembers } from "./presence.ts";

type Shape = Context.Service.Shape<typeof Fabric>;

/** The presence part of a fabric, on whatever carries its messages. `openInbox` makes one that fails when the connection closes. */
export function presenceOn(
  wire: PresenceWire,
  openInbox: <A>(plane: Plane, capacity: number) => Effect.Effect<Inbox<A>, never, Scope.Scope>,
  malformed: () => void,
): Pick<Shape, "announce" | "declareExited" | "watch"> {
  return {
    announce: Effect.fnUntraced(function* (member: Member) {
      const invalid = invalidMember(member);
      if (invalid !== undefined) return yield* failed("announce", invalid);
      yield* Effect.acquireRelease(
        attempt("announce", () => announceMember(wire, member)),
        (leave) => Effect.sync(leave),
      );
    }),
    declareExited: (member) => publishExited(wire, member),
    watch: Effect.fnUntraced(function* (filter) {
      const doorbell = yield* openInbox<true>("control", 1);
      const watched = yield* Effect.acquireRelease(
        attempt("watch", () => watchMembers(wire, filter, () => doorbell.offer(true), malformed)),
        ({ close }) => Effect.sync(close),
      );
      watched.ask();
      const takeAll: Effect.Effect<ReadonlyArray<PresenceEvent>, FabricError> = Effect.suspend(() => {
        const changes = watched.table.changes();
        // The bell may have rung for changes that were taken before, or that cancel each other.
        return changes.length > 0 ? Effect.succeed(changes) : Effect.flatMap(doorbell.takeAll, () => takeAll);
      });
      return { takeAll };
    }),
  };
}

const attempt = <A>(operation: string, work: () => A): Effect.Effect<A, FabricError> =>
  Effect.try({
    try: work,
    catch: (cause) => failed(operation, cause instanceof Error ? cause.message : String(cause)),
  });

const failed = (operation: string, reason: string): FabricError =>
  new FabricError({ code: "failed", operation, reason, retryable: false });
