/** `godwit idle`: what is asked before the actors of a host are stopped. */
import { defaultRuntimeDirectory } from "@godwit/actor";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command, NO_OPERANDS } from "../arguments/command.ts";
import { durationIfGiven, text } from "../arguments/option.ts";
import { hostOptions, nodeOfHost } from "../host/host-options.ts";
import { workInHand } from "../host/work-in-hand.ts";
import { unforeseen } from "../reporting/failure.ts";

/** Between two looks: a migration takes seconds at least. */
const LOOK_AGAIN = "500 millis";

export const idle = command({
  operands: NO_OPERANDS,
  options: {
    node: text("NAME", "the host (default: this host's name)"),
    "runtime-dir": hostOptions["runtime-dir"],
    timeout: durationIfGiven("no limit", "how long to wait"),
  },
  notes: () =>
    `For whoever stops the actors of a host: a container engine before an update, an operator before a reboot. New migrations are not kept
away. The options are those that the actors were started with; neither NATS nor credentials are needed.
`,
  run: ({ values }) => {
    const node = values.node ?? nodeOfHost();
    const look = Effect.try({
      try: () => workInHand(values["runtime-dir"] ?? defaultRuntimeDirectory(node)),
      catch: unforeseen,
    });
    const untilIdle: Effect.Effect<void, GodwitError> = Effect.flatMap(look, (inHand) =>
      inHand.length === 0 ? Effect.void : Effect.andThen(Effect.sleep(LOOK_AGAIN), untilIdle),
    );
    const busy = Effect.flatMap(look, (inHand) => {
      const reason = `after ${values.timeout} ms this host still has something in hand: ${inHand.join(", ")}`;
      return Effect.fail(new GodwitError({ code: "migration-in-progress", actor: "cli", step: "wait", reason }));
    });
    const waiting =
      values.timeout === null
        ? untilIdle
        : Effect.timeoutOrElse(untilIdle, { duration: values.timeout, orElse: () => busy });
    return Effect.as(waiting, { document: { node, idle: true }, text: `node ${node} has nothing in hand\n` });
  },
});
