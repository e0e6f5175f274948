/** From the options of a host to the settings of its actors. */
import {
  addressProblem,
  defaultCheckpointDirectory,
  defaultGuestDirectory,
  defaultRuntimeDirectory,
  directOf,
  listenProblem,
  randomId,
  type Settings,
} from "@godwit/actor";
import { type Incarnation, isSafeName } from "@godwit/protocol";
import type { Values } from "../arguments/option.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { accessOf, type NatsValues } from "../connection.ts";
import type { hostOptions } from "./host-options.ts";

export type HostValues = Values<typeof hostOptions> & NatsValues;

/** Throws a UsageError for a name that could not stand in a subject. `what` is its name for the operator. */
export const checkedName = (what: string, name: string): string => {
  if (isSafeName(name)) return name;
  throw new UsageError(`${what} is ${JSON.stringify(name)}, not 1 to 64 letters, digits, dashes or underscores`);
};

const checked = (what: string, text: string | null, problemOf: (text: string) => string | null): string | null => {
  const problem = text === null ? null : problemOf(text);
  if (problem === null) return text;
  throw new UsageError(`${what} is ${JSON.stringify(text)}, not ${problem}`);
};

export const settingsOf = (values: HostValues, node: string): Settings => ({
  ...accessOf(values),
  ...directOf(
    checked("--direct-listen", values["direct-listen"], listenProblem),
    checked("--direct-address", values["direct-address"], addressProblem),
  ),
  node,
  requireEncryption: values["require-encryption"],
  runtimeDirectory: values["runtime-dir"] ?? defaultRuntimeDirectory(node),
  guestDirectory: values["guest-dir"] ?? defaultGuestDirectory(node),
  checkpointDirectory: values["checkpoint-dir"] ?? defaultCheckpointDirectory(),
  incarnation: randomId() as Incarnation,
});
