import type { ConformanceCase, DeviceFacts } from "./facts.ts";
import { stateCases } from "./state-cases.ts";
import { streamCases } from "./stream-cases.ts";

/** What every device with these facts does. */
export const conformanceCases = (facts: DeviceFacts): ReadonlyArray<ConformanceCase> => [
  ...stateCases(facts),
  ...streamCases(facts),
];
