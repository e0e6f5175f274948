import { assert, describe, it } from "@effect/vitest";
import { GodwitError } from "@godwit/protocol";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import { TestClock } from "effect/testing";
import type { Guest, GuestEnding } from "./guest.ts";
import { watchGuest } from "./watch.ts";

const failure = new GodwitError({ code: "tracker-failed", actor: "guest", step: "sync", reason: "no such process" });
const makeWatch = Effect.gen(function* () {
  const ending = yield* Deferred.make<GuestEnding>();
  // Nothing else of the guest is touched.
  const guest = { ending: Deferred.await(ending) } as Guest;
  const watch = yield* watchGuest(guest, { guest: "vm1", actor: "ram-sender", side: "source" });
  return { watch, end: (how: GuestEnding["how"]) => Deferred.succeed(ending, { how, reason: "it is gone" }) };
});

describe("a watched guest", () => {
  it.effect.each([
    ["shutdown", "guest-shutdown"],
    ["crashed", "guest-failed"],
  ] as const)("that has ended by %s is told of as %s", ([how, code]) =>
    Effect.gen(function* () {
      const { watch, end } = yield* makeWatch;
      yield* end(how);
      const error = yield* watch.ended;
      assert.deepInclude({ ...error }, { code, actor: "ram-sender", side: "source" });
      assert.strictEqual(error.reason, "guest vm1 has ended at the source: it is gone");
    }),
  );

  it.effect("explains a step that fails a moment before the end is known", () =>
    Effect.gen(function* () {
      const { watch, end } = yield* makeWatch;
      const step = yield* Effect.forkChild(Effect.flip(watch.explain(Effect.fail(failure))));
      yield* TestClock.adjust("100 millis");
      assert.isUndefined(step.pollUnsafe());
      yield* end("crashed");
      assert.strictEqual((yield* Fiber.join(step)).code, "guest-failed");
    }),
  );

  it.effect("that lives leaves a failing step its own reason, and a step that succeeds its answer", () =>
    Effect.gen(function* () {
      const { watch } = yield* makeWatch;
      const step = yield* Effect.forkChild(Effect.flip(watch.explain(Effect.fail(failure))));
      yield* TestClock.adjust("1 second");
      assert.strictEqual(yield* Fiber.join(step), failure);
      assert.strictEqual(yield* watch.explain(Effect.succeed(7)), 7);
    }),
  );
});
