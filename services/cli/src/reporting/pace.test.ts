import type { MigrationInfo } from "@godwit/protocol";
import { assert, describe, it } from "vitest";
import { openPace } from "./pace.ts";

const at = (ms: number, transferred: number): MigrationInfo =>
  ({ "total-time": ms, ram: { transferred } }) as unknown as MigrationInfo;

describe("the pace of a migration", () => {
  it("is not known from one state", () => {
    const pace = openPace();
    assert.isNull(pace({ "total-time": 0 } as MigrationInfo));
    assert.isNull(pace(at(0, 0)));
    assert.isNull(pace(at(0, 100)));
  });

  it("is taken over the last second, across rounds", () => {
    const pace = openPace();
    const seen = [0, 500, 1000, 1500, 2000].map((ms) => pace(at(ms, ms <= 1000 ? ms * 10 : 10_000)));
    assert.deepStrictEqual(seen, [null, 10_000, 10_000, 5000, 0]);
  });

  it("is taken over a longer time when states come seldom, and anew after a restart from zero", () => {
    const pace = openPace();
    pace(at(0, 0));
    assert.strictEqual(pace(at(5000, 10_000)), 2000);
    assert.isNull(pace(at(6000, 10)));
  });
});
