import * as Effect from "effect/Effect";
import { command, ONE_MIGRATION } from "../arguments/command.ts";
import { readMigration } from "../arguments/migration-operand.ts";
import { findMigration, follow, pausePostcopy } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { migrationDocument } from "../reporting/ending.ts";

export const pauseCommand = command({
  operands: ONE_MIGRATION,
  options: natsOptions,
  notes: () =>
    "Without MIGRATION: the newest. For tests, and for links that somebody else needs: no page of a postcopy is asked for until\n`godwit recover`.\n",
  run: ({ values, operands: [operand] }) => {
    const wanted = readMigration(operand);
    return onNats(
      values,
      Effect.gen(function* () {
        const { migration } = yield* findMigration(wanted);
        yield* pausePostcopy({ migration });
        const found = yield* follow(
          migration,
          () => {},
          (info) => info.status === "postcopy-paused",
        );
        return { document: migrationDocument(found), text: `migration ${migration} is ${found.status}\n` };
      }),
    );
  },
});
