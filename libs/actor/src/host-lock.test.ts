import { mkdtempSync, rmSync } from "node:fs";
import { assert, describe, it } from "@effect/vitest";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as Fiber from "effect/Fiber";
import { holdHost } from "./host-lock.ts";

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync("/tmp/godwit-host-lock-")),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })),
);

describe("the place of an actor on its host", () => {
  it.live("is one actor's of each role, and the next one's only when that one is gone", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const runtimeDirectory = yield* directory;
        const leave = yield* Deferred.make<void>();
        const held = yield* Deferred.make<void>();
        const first = yield* Effect.forkScoped(
          Effect.scoped(
            Effect.gen(function* () {
              yield* holdHost({ runtimeDirectory }, "loader");
              yield* Deferred.succeed(held, undefined);
              yield* Deferred.await(leave);
            }),
          ),
        );
        yield* Deferred.await(held);
        const second = yield* Effect.forkScoped(Effect.scoped(holdHost({ runtimeDirectory }, "loader")));
        // Another role is nobody's business.
        yield* Effect.scoped(holdHost({ runtimeDirectory }, "ram-sender"));
        const early = yield* Effect.timeoutOption(Fiber.join(second), 300);
        assert.strictEqual(early._tag, "None");
        const third = yield* Effect.forkScoped(Effect.scoped(holdHost({ runtimeDirectory }, "loader")));
        yield* Deferred.succeed(leave, undefined);
        yield* Fiber.join(first);
        yield* Fiber.join(third);
      }),
    ),
  );
});
