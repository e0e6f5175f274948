/** `godwit unregister`: guests that are no more, or that nobody shall move. */
import { defaultRuntimeDirectory } from "@godwit/actor";
import { openRegistry } from "@godwit/guest";
import { GodwitError, isSafeName } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command } from "../arguments/command.ts";
import { text } from "../arguments/option.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { hostOptions, nodeOfHost } from "../host/host-options.ts";
import { movingGuest } from "../host/moving-guest.ts";
import { unforeseen } from "../reporting/failure.ts";

export const unregister = command({
  operands: { usage: "GUEST...", min: 1, max: 1000 },
  options: {
    node: text("NAME", "the host (default: this host's name)"),
    "runtime-dir": hostOptions["runtime-dir"],
  },
  notes: () =>
    "To be run on the host, as `godwit register` is. The guest itself, and the record of who runs it, stay as they are.\n",
  run: ({ values, operands }) => {
    for (const name of operands) {
      if (!isSafeName(name))
        throw new UsageError(
          `guest name ${JSON.stringify(name)} is not 1 to 64 letters, digits, dashes or underscores`,
        );
    }
    const node = values.node ?? nodeOfHost();
    return Effect.gen(function* () {
      const registry = yield* Effect.try({
        try: () => openRegistry(values["runtime-dir"] ?? defaultRuntimeDirectory(node)),
        catch: unforeseen,
      });
      for (const name of operands) {
        const found = registry.find(name);
        if (found === null) {
          const reason = `node ${node} has no guest ${name}`;
          return yield* new GodwitError({ code: "no-such-guest", actor: "cli", step: "unregister", reason });
        }
        if (found.moving !== undefined) return yield* movingGuest(name, found.moving, "unregister");
        registry.remove(name);
      }
      return { document: { node, forgotten: operands }, text: `node ${node} has forgotten ${operands.join(", ")}\n` };
    });
  },
});
