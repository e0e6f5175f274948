import * as Effect from "effect/Effect";
import { command } from "../arguments/command.ts";
import { readMigration } from "../arguments/migration-operand.ts";
import { readParameters } from "../arguments/migration-settings.ts";
import { parametersHelp } from "../arguments/settings-help.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { findMigration, setParameters } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { migrationDocument } from "../reporting/ending.ts";

export const set = command({
  operands: { usage: "[MIGRATION] NAME=VALUE...", min: 1, max: Number.POSITIVE_INFINITY },
  options: natsOptions,
  notes: () => `Without MIGRATION: the newest. These may change while a migration runs:\n\n${parametersHelp("live")}`,
  run: ({ values, operands }) => {
    const [first = "", ...others] = operands;
    const named = !first.includes("=");
    const wanted = named ? readMigration(first) : undefined;
    const settings = named ? others : operands;
    if (settings.length === 0) throw new UsageError("NAME=VALUE is missing, for example downtime-limit=500ms");
    const parameters = readParameters(settings);
    return onNats(
      values,
      Effect.gen(function* () {
        const { migration } = yield* findMigration(wanted);
        const info = yield* setParameters({ migration, parameters });
        const now = Object.entries(parameters).map(([name, value]) => `${name}=${value}`);
        return { document: migrationDocument(info), text: `migration ${migration} has ${now.join(", ")} now\n` };
      }),
    );
  },
});
