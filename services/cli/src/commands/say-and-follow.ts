import type { Fabric } from "@godwit/fabric";
import type { GodwitError, MigrationId, MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { type Command, command, ONE_MIGRATION } from "../arguments/command.ts";
import { readMigration } from "../arguments/migration-operand.ts";
import { findMigration, follow } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { endingOf } from "../reporting/ending.ts";

type Say = (request: { readonly migration: MigrationId }) => Effect.Effect<MigrationInfo, GodwitError, Fabric>;

/** A command that says a word to a migration, the newest unless one is named, and follows it to its end. `notes`: whole lines. */
export const sayAndFollow = (say: Say, notes: string): Command =>
  command({
    operands: ONE_MIGRATION,
    options: natsOptions,
    notes: () => `Without MIGRATION: the newest. ${notes}`,
    run: ({ values, operands: [operand] }, report) => {
      const wanted = readMigration(operand);
      return onNats(
        values,
        Effect.gen(function* () {
          const { migration } = yield* findMigration(wanted);
          yield* say({ migration });
          return endingOf(yield* follow(migration, report.progress));
        }),
      );
    },
  });
