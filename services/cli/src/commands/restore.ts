import { randomId } from "@godwit/actor";
import type { RestoreRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command } from "../arguments/command.ts";
import { migrationOptions, readCapabilities, readParameters } from "../arguments/migration-settings.ts";
import { flag, text } from "../arguments/option.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { followCheckpoint, outcomeOf } from "../checkpoint-journey.ts";
import { cancelRestore, queryRestore, restore } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";

export const restoreCommand = command({
  operands: { usage: "GUEST file:PATH[,offset=BYTES]|nats-object:BUCKET/NAME --on NODE", min: 2, max: 2 },
  options: {
    on: text("NODE", "the node to start the guest on"),
    lazy: flag("run the guest at once: its pages come when it touches them, the rest behind"),
    stop: flag("leave the restored guest stopped"),
    "take-over": flag(
      "the copy that ran last is gone for good, says who gives this: its host is dead, or was fenced off",
    ),
    channels: text("N", "multifd channels (default 2); the same as --set multifd-channels=N"),
    ...migrationOptions,
    ...natsOptions,
  },
  notes: () =>
    "A builtin guest is started; a QEMU must wait with -incoming defer, as for a migration. A guest that any node has already is not\nstarted a second time. When the ownership record says that it last ran on a node that does not answer now, only --take-over starts\nit: no record can know that a host is dead.\nWith --lazy the checkpoint must stay until the restore has ended; a QEMU is then fed as in a postcopy of its own, and must be able to\ntake one (RAM on tmpfs, no huge pages).\n",
  run: ({ values, operands: [guest = "", uri = ""] }, report) => {
    if (values.on === null) throw new UsageError("--on is missing: the node to start the guest on");
    const node = values.on;
    const channels = values.channels === null ? [] : [`multifd-channels=${values.channels}`];
    const request: RestoreRequest = {
      id: randomId() as RestoreRequest["id"],
      guest,
      uri,
      parameters: readParameters([...channels, ...values.set]),
      capabilities: readCapabilities(values.capability),
      stop: values.stop,
      takeOver: values["take-over"],
      lazy: values.lazy,
    };
    return onNats(
      values,
      Effect.gen(function* () {
        const begun = yield* restore(node, request);
        report.say(`restore ${begun.id} starts guest ${guest} at node ${node} from ${uri}`);
        return outcomeOf(yield* followCheckpoint(begun, { query: queryRestore, cancel: cancelRestore }, report));
      }),
    );
  },
});
