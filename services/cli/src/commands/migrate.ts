import * as Effect from "effect/Effect";
import { command } from "../arguments/command.ts";
import { migrationOptions, readCapabilities, readParameters } from "../arguments/migration-settings.ts";
import { flag, text } from "../arguments/option.ts";
import { settingsHelp } from "../arguments/settings-help.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { follow, migrate } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { endingOf, migrationDocument } from "../reporting/ending.ts";

export const migrateCommand = command({
  operands: { usage: "GUEST --to NODE", min: 1, max: 1 },
  options: {
    to: text("NODE", "the node to move the guest to"),
    channels: text("N", "multifd channels (default 2); the same as --set multifd-channels=N"),
    ...migrationOptions,
    detach: flag("return once the migration has begun"),
    ...natsOptions,
  },
  notes: () =>
    `Follows the migration to its end. Ctrl-C stops only that: the migration goes on, \`godwit cancel\` ends it.\n\n${settingsHelp()}`,
  run: ({ values, operands: [guest = ""] }, report) => {
    if (values.to === null) throw new UsageError("--to is missing: the node to move the guest to");
    const channels = values.channels === null ? [] : [`multifd-channels=${values.channels}`];
    const request = {
      guest,
      destination: values.to,
      parameters: readParameters([...channels, ...values.set]),
      capabilities: readCapabilities(values.capability),
    };
    return onNats(
      values,
      Effect.gen(function* () {
        const begun = yield* migrate(request);
        if (values.detach) {
          return { document: migrationDocument(begun), text: `migration ${begun.migration} has begun\n` };
        }
        report.say(`migration ${begun.migration} moves guest ${guest} from ${begun.source} to ${begun.destination}`);
        const ended = yield* follow(begun.migration, report.progress).pipe(
          Effect.onInterrupt(() =>
            Effect.sync(() => report.note(`migration ${begun.migration} goes on; \`godwit cancel\` ends it`)),
          ),
        );
        return endingOf(ended);
      }),
    );
  },
});
