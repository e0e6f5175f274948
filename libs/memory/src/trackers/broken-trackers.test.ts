import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import type { DirtyTracker } from "../dirty-tracker.ts";
import { type OpenTracker, trackerCases } from "../testing/tracker-cases.ts";
import { openContentTracker } from "./content.ts";

/** Changes a working tracker into a broken one. */
const broken =
  (breakIt: (tracker: DirtyTracker, guest: DirtyTracker["readFrom"]) => DirtyTracker): OpenTracker =>
  (process, directory) =>
    Effect.map(openContentTracker(process.blocks, directory), (tracker) => breakIt(tracker, process.blocks));

const forget = () => {};

/** Clears what was written while its report was read, as one that reads first and clears afterwards would. */
const clearsAfterReading = broken((tracker) => ({
  ...tracker,
  sync: (found) => Effect.tap(tracker.sync(found), () => tracker.sync(forget)),
}));

/** Compares with a shadow, but has the guest's own memory sent. */
const readsFromTheGuest = broken((tracker, guest) => ({ ...tracker, readFrom: guest }));

/** Never reports the last run of a sync. */
const dropsTheLastRun = broken((tracker) => ({
  ...tracker,
  sync: (found) =>
    Effect.suspend(() => {
      const runs: Array<readonly [number, number, number]> = [];
      return Effect.map(
        tracker.sync((...run) => runs.push(run)),
        (report) => {
          const [, , dropped] = runs.pop() ?? [0, 0, 0];
          for (const run of runs) found(...run);
          return { ...report, dirtyPages: report.dirtyPages - dropped };
        },
      );
    }),
}));

/** How one statement of the suite ends for a tracker. */
const verdict = (open: OpenTracker, statement: string) => {
  const found = trackerCases.find((one) => one.statement === statement);
  assert.isDefined(found, `the suite has the statement "${statement}"`);
  return Effect.map(Effect.exit(Effect.scoped(found!.check(open))), (exit) => exit._tag);
};

describe("the conformance suite", () => {
  it.live("catches a tracker that clears after reading", () =>
    Effect.gen(function* () {
      const statement = "no update is lost while the guest writes at full speed during syncs and reads";
      assert.equal(yield* verdict(clearsAfterReading, statement), "Failure");
    }),
  );
  it.live("catches a tracker whose reader reads something else than what was compared", () =>
    Effect.gen(function* () {
      const statement = "a page that is B only while it is read, and A before and after, leaves A in the copy";
      assert.equal(yield* verdict(readsFromTheGuest, statement), "Failure");
    }),
  );
  it.live("catches a tracker that drops a run", () =>
    Effect.gen(function* () {
      const statement = "the first sync reports every page, also those never touched";
      assert.equal(yield* verdict(dropsTheLastRun, statement), "Failure");
    }),
  );
});
