import { it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { describe } from "vitest";
import { type OpenTracker, trackerCases } from "../testing/tracker-cases.ts";

/** Runs every statement about dirty trackers against one of them. `missing`: why it cannot be tried on this host. */
export const trackerConformance = (name: string, open: OpenTracker, missing: string | null = null): void => {
  const title = missing === null ? `the ${name} tracker` : `the ${name} tracker (skipped: ${missing})`;
  describe.skipIf(missing !== null)(title, () => {
    for (const { statement, check } of trackerCases) it.live(statement, () => Effect.scoped(check(open)));
  });
};
