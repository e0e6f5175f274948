/** How a migration that has ended becomes the outcome of a command. */
import { GodwitError, type MigrationInfo, toError } from "@godwit/protocol";
import type { Outcome } from "../arguments/command.ts";
import { failureDocument } from "./failure.ts";
import { summaryText } from "./migration-view.ts";

/** Why it did not end well; null when it was completed. */
export const failureOf = (info: MigrationInfo): GodwitError | null => {
  if (info.status === "completed") return null;
  if (info.error !== undefined) return toError(info.error);
  const reason = `the migration is ${info.status}, and no reason was given`;
  return new GodwitError({ code: "internal", actor: "cli", step: "migrate", reason });
};

/** `query-migrate`'s fields, and an error as all errors are shown. */
export const migrationDocument = (info: MigrationInfo): Readonly<Record<string, unknown>> => ({
  ...info,
  ...(info.error === undefined ? {} : { error: failureDocument(toError(info.error)) }),
});

export const endingOf = (info: MigrationInfo): Outcome => {
  const failure = failureOf(info);
  return {
    document: migrationDocument(info),
    text: summaryText(info),
    ...(failure === null ? {} : { failure }),
  };
};
