import { PROTOCOL, versionText } from "@godwit/protocol";
import * as Clock from "effect/Clock";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import { expect, it } from "vitest";
import type { CurrentWorld } from "../fabric.conformance.ts";
import { type Member, type News, type PresenceEvent, SILENT_MS } from "../fabric.ts";

/** From death to its report, ms: what `SILENT_MS` promises. */
const NOTICED_MS = 1_000;

const member = (id: string, incarnation = "i1"): Member => ({ role: "multifd-worker", node: "a", id, incarnation });
/** As it is heard: its fabric adds what it speaks. */
const spoken = (who: Member): Member => ({ ...who, protocol: versionText(PROTOCOL) });
const up = (who: Member): PresenceEvent => ({ _tag: "Up", member: spoken(who) });
const down = (who: Member, why: "silent" | "exited"): PresenceEvent => ({
  _tag: "Down",
  member: spoken(who),
  why,
});

const take = Effect.fnUntraced(function* (news: News<PresenceEvent>, count: number) {
  const taken: Array<PresenceEvent> = [];
  while (taken.length < count) taken.push(...(yield* news.takeAll));
  return taken;
});

export function presenceConformance(world: CurrentWorld): void {
  it("a watcher first gets those that are up, then those that come, and goodbyes at once", () =>
    world().run(
      Effect.gen(function* () {
        const [alice, watcher] = [yield* world().join("alice"), yield* world().join("watcher")];
        const scope = yield* Scope.make();
        yield* alice.announce(member("early")).pipe(Scope.provide(scope));
        const news = yield* watcher.watch({ role: "multifd-worker" });
        expect(yield* take(news, 1)).toEqual([up(member("early"))]);
        yield* alice.announce(member("late")).pipe(Scope.provide(scope));
        expect(yield* take(news, 1)).toEqual([up(member("late"))]);
        const startedMs = yield* Clock.currentTimeMillis;
        yield* Scope.close(scope, Exit.void);
        const goodbyes = yield* take(news, 2);
        expect(goodbyes).toContainEqual(down(member("early"), "exited"));
        expect(goodbyes).toContainEqual(down(member("late"), "exited"));
        expect((yield* Clock.currentTimeMillis) - startedMs).toBeLessThan(SILENT_MS);
      }),
    ));

  it("a watcher sees the role and the node it asked for", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        const wanted: Member = { role: "loader", node: "b", id: "l1", incarnation: "i1" };
        const byRole = yield* fabric.watch({ role: "loader" });
        const byNode = yield* fabric.watch({ node: "b" });
        yield* fabric.announce({ ...wanted, node: "a" });
        yield* fabric.announce({ ...wanted, role: "ram-sender" });
        yield* fabric.announce(wanted);
        expect(yield* take(byRole, 2)).toEqual([up({ ...wanted, node: "a" }), up(wanted)]);
        expect(yield* take(byNode, 2)).toEqual([up({ ...wanted, role: "ram-sender" }), up(wanted)]);
      }),
    ));

  it("a name that is not a token of a subject is refused", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        const error = yield* Effect.flip(fabric.announce({ ...member("x"), node: "a.b" }));
        expect(error.message).toContain('node "a.b"');
      }),
    ));

  it("a member that dies is down as silent within a second", () =>
    world().run(
      Effect.gen(function* () {
        const watcher = yield* world().join("watcher");
        const news = yield* watcher.watch({});
        const other = yield* world().announceElsewhere(member("mortal"));
        expect(yield* take(news, 1)).toEqual([up(member("mortal"))]);
        const diedMs = yield* Clock.currentTimeMillis;
        yield* other.crash;
        expect(yield* take(news, 1)).toEqual([down(member("mortal"), "silent")]);
        const noticedMs = (yield* Clock.currentTimeMillis) - diedMs;
        expect(noticedMs).toBeGreaterThan(SILENT_MS / 2);
        expect(noticedMs).toBeLessThan(NOTICED_MS + world().slackMs);
      }),
    ));

  it("a supervisor's word makes it down at once, and late beats do not bring it back", () =>
    world().run(
      Effect.gen(function* () {
        const watcher = yield* world().join("watcher");
        const news = yield* watcher.watch({});
        yield* world().announceElsewhere(member("declared"));
        expect(yield* take(news, 1)).toEqual([up(member("declared"))]);
        const declaredMs = yield* Clock.currentTimeMillis;
        watcher.declareExited(member("declared"));
        expect(yield* take(news, 1)).toEqual([down(member("declared"), "exited")]);
        expect((yield* Clock.currentTimeMillis) - declaredMs).toBeLessThan(SILENT_MS / 2);
        // It beats on, being alive after all.
        const more = yield* news.takeAll.pipe(Effect.timeoutOption(SILENT_MS));
        expect(more._tag).toBe("None");
      }),
    ));

  it("a member that restarts is down in its old incarnation and up in the new one", () =>
    world().run(
      Effect.gen(function* () {
        const watcher = yield* world().join("watcher");
        const news = yield* watcher.watch({});
        const first = yield* world().announceElsewhere(member("phoenix", "life1"));
        expect(yield* take(news, 1)).toEqual([up(member("phoenix", "life1"))]);
        const restartedMs = yield* Clock.currentTimeMillis;
        yield* first.crash;
        watcher.declareExited(member("phoenix", "life1"));
        yield* world().announceElsewhere(member("phoenix", "life2"));
        expect(yield* take(news, 2)).toEqual([
          down(member("phoenix", "life1"), "exited"),
          up(member("phoenix", "life2")),
        ]);
        // On real clocks a new process has to start first.
        expect((yield* Clock.currentTimeMillis) - restartedMs).toBeLessThan(10_000);
      }),
    ));

  it("a member that was stopped is down as silent and comes back; one that was replaced meanwhile does not", () =>
    world().run(
      Effect.gen(function* () {
        const watcher = yield* world().join("watcher");
        const news = yield* watcher.watch({});
        const other = yield* world().announceElsewhere(member("zombie", "life1"));
        yield* take(news, 1);
        yield* other.pause;
        expect(yield* take(news, 1)).toEqual([down(member("zombie", "life1"), "silent")]);
        yield* other.resume;
        expect(yield* take(news, 1)).toEqual([up(member("zombie", "life1"))]);
        yield* other.pause;
        yield* take(news, 1);
        yield* world().announceElsewhere(member("zombie", "life2"));
        expect(yield* take(news, 1)).toEqual([up(member("zombie", "life2"))]);
        yield* other.resume;
        const more = yield* news.takeAll.pipe(Effect.timeoutOption(SILENT_MS));
        expect(more._tag).toBe("None");
      }),
    ));
}
