import * as Effect from "effect/Effect";
import { command, ONE_MIGRATION } from "../arguments/command.ts";
import { readMigration } from "../arguments/migration-operand.ts";
import { findMigration, follow, resumePaused } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { endingOf } from "../reporting/ending.ts";

export const continueCommand = command({
  operands: ONE_MIGRATION,
  options: natsOptions,
  notes: () =>
    "Without MIGRATION: the newest. With the capability pause-before-switchover a migration waits in pre-switchover, the guest\nstopped, for this. Follows it to its end.\n",
  run: ({ values, operands: [operand] }, report) => {
    const wanted = readMigration(operand);
    return onNats(
      values,
      Effect.gen(function* () {
        const { migration } = yield* findMigration(wanted);
        yield* resumePaused({ migration });
        return endingOf(yield* follow(migration, report.progress));
      }),
    );
  },
});
