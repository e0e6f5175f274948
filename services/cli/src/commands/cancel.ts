import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command, ONE_MIGRATION } from "../arguments/command.ts";
import { readMigration } from "../arguments/migration-operand.ts";
import { cancel, findMigration, follow } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { migrationDocument } from "../reporting/ending.ts";

export const cancelCommand = command({
  operands: ONE_MIGRATION,
  options: natsOptions,
  notes: () => "Without MIGRATION: the newest. Waits until the guest goes on at its source.\n",
  run: ({ values, operands: [operand] }) => {
    const wanted = readMigration(operand);
    return onNats(
      values,
      Effect.gen(function* () {
        const { migration } = yield* findMigration(wanted);
        yield* cancel({ migration });
        const ended = yield* follow(migration, () => {});
        const document = migrationDocument(ended);
        if (ended.status === "cancelled") return { document, text: `migration ${migration} is cancelled\n` };
        const failure = new GodwitError({
          code: "wrong-state",
          actor: "cli",
          step: "cancel",
          reason: `migration ${migration} was ${ended.status} before it could be cancelled`,
        });
        return { document, text: "", failure };
      }),
    );
  },
});
