import { assert, describe, it } from "@effect/vitest";
import { GodwitError } from "@godwit/protocol";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as References from "effect/References";
import { answering, asGodwitError } from "./actor-process.ts";

const failureOf = asGodwitError("loader", "open the guest's memory");
const full = (about: object): Error => Object.assign(new Error("no room on /run/x"), about);

describe("a failure of an actor's own machinery", () => {
  it("is `no-space` when a file system is full, however that was said, and `internal` otherwise", () => {
    assert.strictEqual(failureOf(full({ code: "ENOSPC", errno: -28 })).code, "no-space");
    assert.strictEqual(failureOf(full({ errno: "ENOSPC" })).code, "no-space");
    assert.strictEqual(failureOf(full({ code: "EIO", errno: -5 })).code, "internal");
    assert.match(failureOf(full({ errno: "ENOSPC" })).reason, /no room on \/run\/x/);
    for (const cause of [undefined, null, "a word", Object.create(null)])
      assert.strictEqual(failureOf(cause).code, "internal");
  });

  it("stays what it is when it has a code", () => {
    const error = new GodwitError({ code: "fenced", actor: "loader", step: "commit", reason: "taken back" });
    assert.strictEqual(failureOf(error), error);
  });
});

describe("a step that somebody waits for", () => {
  const answer = <A>(work: Effect.Effect<A, GodwitError>) =>
    Effect.provideService(answering("loader", "prepare")(work), References.MinimumLogLevel, "None");

  it.effect("fails with what it throws", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(answer(Effect.die(new TypeError("null has no length"))));
      assert.include(error, { code: "internal", actor: "loader", step: "prepare" });
      assert.match(error.reason, /null/);
    }),
  );

  it.effect("fails with nothing when it is interrupted", () =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(answer(Effect.never));
      yield* Fiber.interrupt(fiber);
      const exit = yield* Fiber.await(fiber);
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause));
    }),
  );
});
