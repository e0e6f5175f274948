import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command } from "../arguments/command.ts";
import { readMigration } from "../arguments/migration-operand.ts";
import { flag } from "../arguments/option.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { follow, giveUp } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { migrationDocument } from "../reporting/ending.ts";

/** Codes of an ending by which nobody runs the guest any more. */
const LOST = new Set(["postcopy-given-up", "postcopy-source-lost", "guest-failed"]);

export const giveUpCommand = command({
  operands: { usage: "MIGRATION", min: 1, max: 1 },
  options: {
    yes: flag("the host that does not come back is gone for good, and the guest shall end, says who gives this"),
    ...natsOptions,
  },
  notes: () =>
    "For a postcopy whose pages do not come, and never will: its source's host is lost, or its destination's. What is left of the guest is\nended at both sides, also at one that comes back later, and the ownership record says why; then the guest can be restored from a\ncheckpoint. Refused while pages come, and while a word of yours (`godwit recover`) may bring them. There is no way back.\n",
  run: ({ values, operands: [operand] }) => {
    const migration = readMigration(operand);
    if (migration === undefined) throw new UsageError("MIGRATION is missing: nobody gives up the newest by mistake");
    if (!values.yes)
      throw new UsageError(
        `--yes is missing: the guest of migration ${migration} would be ended, and what it has in memory is lost`,
        "`godwit status` says which host has not been heard",
      );
    return onNats(
      values,
      Effect.gen(function* () {
        yield* giveUp({ migration });
        const ended = yield* follow(migration, () => {});
        const document = migrationDocument(ended);
        if (ended.status === "failed" && LOST.has(ended.error?.code ?? ""))
          return { document, text: `migration ${migration} is given up: guest ${ended.guest} runs nowhere any more\n` };
        const failure = new GodwitError({
          code: "wrong-state",
          actor: "cli",
          step: "give up",
          reason: `migration ${migration} was ${ended.status} before it could be given up`,
        });
        return { document, text: "", failure };
      }),
    );
  },
});
