/** What became of a step that did not succeed. */
import { asGodwitError } from "@godwit/actor";
import { fromError } from "@godwit/protocol";
import * as Cause from "effect/Cause";
import type { Failed } from "./device-access.ts";

/** Also a step that threw has failed: whoever waits for its answer must get one. */
export const failedOf = (cause: Cause.Cause<Failed>, side: "source" | "destination"): Failed => {
  const error = Cause.squash(cause);
  if (typeof error === "object" && error !== null && "failure" in error) return error as Failed;
  const failure = fromError(asGodwitError("vfio-agent", "work on a device")(error));
  return { state: null, failure: { ...failure, code: "device-failed", side } };
};
