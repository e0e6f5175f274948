import { randomId } from "@godwit/actor";
import { GodwitError, type SaveRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command } from "../arguments/command.ts";
import { migrationOptions, readCapabilities, readParameters } from "../arguments/migration-settings.ts";
import { flag, text } from "../arguments/option.ts";
import { followCheckpoint, outcomeOf } from "../checkpoint-journey.ts";
import { cancelSave, nodes, querySave, save } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";

export const saveCommand = command({
  operands: { usage: "GUEST file:PATH[,offset=BYTES]|nats-object:BUCKET/NAME", min: 2, max: 2 },
  options: {
    stop: flag("stop the guest first, and leave it stopped"),
    checksums: flag("keep a checksum of each page in PATH.sums; `godwit restore` checks them"),
    channels: text("N", "multifd channels (default 2); the same as --set multifd-channels=N"),
    ...migrationOptions,
    ...natsOptions,
  },
  notes: () =>
    "The guest runs on meanwhile, and stands still only for the last round. A relative PATH counts from the node's checkpoint folder\n(`godwit node --checkpoint-dir`), and none may lead out of it. A checkpoint that is there is replaced once the new one is on disk.\nCtrl-C ends the save: the guest goes on, and the old checkpoint stays.\n\nOf the parameters, `downtime-limit`, `max-bandwidth`, `multifd-channels`, `direct-io`, `dirty-tracker`, `stall-timeout` and the\ndeadlines mean something here.\n",
  run: ({ values, operands: [guest = "", uri = ""] }, report) => {
    const channels = values.channels === null ? [] : [`multifd-channels=${values.channels}`];
    const request: SaveRequest = {
      id: randomId() as SaveRequest["id"],
      guest,
      uri,
      parameters: readParameters([...channels, ...values.set]),
      capabilities: readCapabilities(values.capability),
      stop: values.stop,
      checksums: values.checksums,
    };
    return onNats(
      values,
      Effect.gen(function* () {
        const home = (yield* nodes({})).find((node) => node.guests.some(({ name }) => name === guest));
        if (home === undefined)
          return yield* new GodwitError({
            code: "no-such-guest",
            actor: "cli",
            step: "find the guest",
            reason: `no node has a guest ${guest}`,
          });
        const begun = yield* save(home.node, request);
        report.say(`save ${begun.id} writes guest ${guest} of node ${home.node} to ${uri}`);
        return outcomeOf(yield* followCheckpoint(begun, { query: querySave, cancel: cancelSave }, report));
      }),
    );
  },
});
