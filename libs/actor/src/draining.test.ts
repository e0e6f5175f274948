import * as Effect from "effect/Effect";
import * as References from "effect/References";
import { describe, expect, it } from "vitest";
import { drainAtEnd } from "./draining.ts";

/** Ends an actor that is busy for so many looks; how often it was looked at, and what was still working meanwhile. */
const end = async (looks: number) => {
  let looked = 0;
  const events: string[] = [];
  await Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        yield* Effect.addFinalizer(() => Effect.sync(() => events.push("the actor's own end")));
        yield* drainAtEnd(() => {
          const busy = ++looked < looks;
          if (!busy) events.push("idle");
          return busy;
        });
      }),
    ).pipe(Effect.provideService(References.MinimumLogLevel, "None")),
  );
  return { looked, events };
};

describe("an actor that is told to end", () => {
  it("ends at once when nothing is half done", async () => {
    expect(await end(1)).toEqual({ looked: 1, events: ["idle", "the actor's own end"] });
  });

  it("first ends what is, while all that it has works on", async () => {
    expect(await end(5)).toEqual({ looked: 5, events: ["idle", "the actor's own end"] });
  });

  it("does not wait for ever", async () => {
    const { looked, events } = await end(Number.POSITIVE_INFINITY);
    expect(looked).toBeGreaterThan(5);
    expect(events).toEqual(["the actor's own end"]);
  });
});
