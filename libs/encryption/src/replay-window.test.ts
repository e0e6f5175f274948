import fc from "fast-check";
import { assert, describe, it } from "vitest";
import { hasCome, makeWindow, note, WINDOW_PACKETS } from "./replay-window.ts";

/** Counters as they may arrive: mostly one after the other, some early, late, twice, or after a great gap. */
const arrivals = fc
  .array(
    fc.oneof(
      { weight: 6, arbitrary: fc.constant(1) },
      fc.integer({ min: -70, max: 70 }),
      fc.integer({ min: -WINDOW_PACKETS - 40, max: WINDOW_PACKETS + 40 }),
      fc.integer({ min: -3 * WINDOW_PACKETS, max: 3 * WINDOW_PACKETS }),
    ),
    { minLength: 1, maxLength: 120 },
  )
  .map((steps) => {
    let at = 1;
    return steps.map((step) => {
      at = Math.max(1, at + step);
      return at;
    });
  });

describe("a replay window", () => {
  it("lets each counter in once, and none that is older than the window", () => {
    fc.assert(
      fc.property(arrivals, (counters) => {
        const window = makeWindow();
        const seen = new Set<number>();
        let highest = 0;
        for (const counter of counters) {
          const refused = seen.has(counter) || counter <= highest - WINDOW_PACKETS;
          assert.strictEqual(hasCome(window, counter), refused, `counter ${counter} of ${counters}`);
          if (refused) continue;
          note(window, counter);
          seen.add(counter);
          highest = Math.max(highest, counter);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("takes all that is on its way, whatever overtakes it", () => {
    const window = makeWindow();
    note(window, WINDOW_PACKETS);
    for (let late = WINDOW_PACKETS - 1; late > 0; late--) {
      assert.isFalse(hasCome(window, late));
      note(window, late);
      assert.isTrue(hasCome(window, late));
    }
    note(window, WINDOW_PACKETS + 1);
    assert.isTrue(hasCome(window, 1));
  });
});
