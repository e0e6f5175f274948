import { assert, describe, it } from "@effect/vitest";
import { probeUserfaultfd } from "@godwit/host";
import * as Effect from "effect/Effect";
import { scanCost } from "./scan-cost.ts";

const SMALL_BYTES = 16 * 2 ** 20;
const userfaultfdWorks = probeUserfaultfd()._tag === "Works";

describe("the cost of a sync", () => {
  it.live("is measured for content", () =>
    Effect.gen(function* () {
      const cost = yield* scanCost("content", SMALL_BYTES);
      assert.equal(cost.bytes, SMALL_BYTES);
      assert.isAbove(cost.cleanMsPerGiB, 0);
    }),
  );
  it.live.skipIf(!userfaultfdWorks)("of userfaultfd grows with what was written", () =>
    Effect.gen(function* () {
      const cost = yield* scanCost("userfaultfd", SMALL_BYTES);
      assert.isBelow(cost.cleanMsPerGiB, cost.scatteredMsPerGiB);
    }),
  );
});
