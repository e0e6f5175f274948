/**
 * Runs the statements about dirty trackers as the user that this program is started as, without a test runner, whose cache
 * folders a plain user may not write. Prints one JSON array of {tracker, statement, failure}; failure is null where it held.
 */
import * as Effect from "effect/Effect";
import { openContentTracker } from "../trackers/content.ts";
import { openUserfaultfdTracker } from "../trackers/userfaultfd.ts";
import { type OpenTracker, trackerCases } from "./tracker-cases.ts";

const trackers: Readonly<Record<string, OpenTracker>> = {
  userfaultfd: openUserfaultfdTracker,
  content: (process, directory) => openContentTracker(process.blocks, directory),
};

const verdicts = Effect.forEach(Object.entries(trackers), ([tracker, open]) =>
  Effect.forEach(trackerCases, ({ statement, check }) =>
    Effect.map(Effect.exit(Effect.scoped(check(open))), (exit) => ({
      tracker,
      statement,
      failure: exit._tag === "Failure" ? String(exit.cause) : null,
    })),
  ),
);

console.log(JSON.stringify((await Effect.runPromise(verdicts)).flat()));
