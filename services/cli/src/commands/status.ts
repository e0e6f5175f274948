import * as Effect from "effect/Effect";
import { command, ONE_MIGRATION, type Outcome } from "../arguments/command.ts";
import { readMigration } from "../arguments/migration-operand.ts";
import { flag } from "../arguments/option.ts";
import { findMigration, listMigrations } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { migrationDocument } from "../reporting/ending.ts";
import { fieldsText, migrationsTable } from "../reporting/status-text.ts";

export const status = command({
  operands: ONE_MIGRATION,
  options: { all: flag("list all migrations that are known, oldest first"), ...natsOptions },
  notes: () =>
    "Without MIGRATION: the newest. Names and units are those of QEMU's query-migrate: ms, bytes, megabits/s.\n",
  run: ({ values, operands: [operand] }) => {
    const migration = readMigration(operand);
    const one = Effect.map(
      findMigration(migration),
      (info): Outcome => ({
        document: migrationDocument(info),
        text: fieldsText(info),
      }),
    );
    const all = Effect.map(
      listMigrations({}),
      (list): Outcome => ({
        document: list.map(migrationDocument),
        text: migrationsTable(list),
      }),
    );
    return onNats(values, values.all ? all : one);
  },
});
