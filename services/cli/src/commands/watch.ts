import * as Effect from "effect/Effect";
import { command, ONE_MIGRATION } from "../arguments/command.ts";
import { readMigration } from "../arguments/migration-operand.ts";
import { findMigration, follow } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { endingOf } from "../reporting/ending.ts";

export const watch = command({
  operands: ONE_MIGRATION,
  options: natsOptions,
  notes: () => "Without MIGRATION: the newest. Ends with the migration; exit code 0 when it was completed.\n",
  run: ({ values, operands: [operand] }, report) => {
    const migration = readMigration(operand);
    return onNats(
      values,
      Effect.gen(function* () {
        const found = yield* findMigration(migration);
        return endingOf(yield* follow(found.migration, report.progress));
      }),
    );
  },
});
