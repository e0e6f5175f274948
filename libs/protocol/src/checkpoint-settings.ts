/** What a save or a restore may be asked for: the settings of a migration, as far as a file can have them. */
import { proposeCapabilities } from "./capabilities.ts";
import type { Failure } from "./failure.ts";
import { type Parameters, proposeParameters } from "./parameters.ts";

/** The parameters of a checkpoint, or why it cannot be had so. The whole set is checked at once. */
export const proposeCheckpoint = (asked: {
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly capabilities: Readonly<Record<string, boolean>>;
}): Parameters | Failure => {
  const capabilities = proposeCapabilities(asked.capabilities, null, "file");
  if ("code" in capabilities) return capabilities;
  const parameters = proposeParameters(asked.parameters);
  if ("code" in parameters) return parameters;
  if (parameters["multifd-compression"] === "none") return parameters;
  return {
    code: "capability-conflict",
    actor: "coordinator",
    step: "check parameters",
    reason: "Cannot use compression with mapped-ram: each page has its place in the file",
  };
};
