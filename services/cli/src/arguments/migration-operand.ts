import { isMigrationId, type MigrationId } from "@godwit/protocol";
import { UsageError } from "./usage-error.ts";

/** The migration a command is about; undefined: the newest. */
export const readMigration = (operand: string | undefined): MigrationId | undefined => {
  if (operand === undefined || isMigrationId(operand)) return operand;
  throw new UsageError(
    `${JSON.stringify(operand)} is not the id of a migration (16 hex digits)`,
    "`godwit status --all` lists the migrations that are known",
  );
};
