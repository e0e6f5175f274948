import { join } from "node:path";
import { type ActorProgram, actorOf, type Settings } from "@godwit/actor";
import { runInventory } from "@godwit/node";
import type { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command } from "../arguments/command.ts";
import { DEVICE_HELP, deviceOption, withDevices } from "../arguments/device-argument.ts";
import { GUEST_HELP, type GuestArgument, guestOption, readGuest } from "../arguments/guest-argument.ts";
import { text, textOr } from "../arguments/option.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { natsOptions } from "../connection.ts";
import { keepGuests } from "../host/guests.ts";
import { hostOptions, nodeOfHost } from "../host/host-options.ts";
import { checkedName, settingsOf } from "../host/host-settings.ts";
import { runLauncher } from "../host/launching.ts";
import { loadProgram, ROLES, type Role, readRole } from "../host/roles.ts";
import { unforeseen } from "../reporting/failure.ts";

export const actor = command({
  operands: { usage: "ROLE", min: 1, max: 1 },
  options: {
    node: text("NAME", "the host that it acts for (default: this host's name)"),
    id: textOr("N", "0", "a multifd worker's number within its node's pool", { variable: "GODWIT_WORKER" }),
    guest: { ...guestOption, what: "of role node: a guest of this node, may be repeated; see below" },
    vfio: deviceOption,
    launcher: text(
      "SOCKET",
      "where the host's launcher listens; builtin guests are started by it (default: by the actor itself)",
    ),
    ...hostOptions,
    ...natsOptions,
  },
  notes: () => `Roles: ${ROLES.join(", ")}.

For container engines and other supervisors: one actor, in this process, until SIGTERM. \`godwit node\` runs all of a host's actors
under a supervisor of its own. The actors of one host share its runtime directory, its guest directory and its process ids.

${GUEST_HELP}
${DEVICE_HELP}
Where an actor's end is the end of all that it has started, as in a container, one of role launcher starts builtin guests for
the others: they are told its socket by --launcher or GODWIT_LAUNCHER. A builtin guest goes on without the actor that started it, and is there again when that one is started again.
`,
  run: ({ values, operands }) => {
    const role = readRole(operands[0]);
    const node = checkedName("the node's name", values.node ?? nodeOfHost());
    const id = checkedName("the worker's number", values.id);
    const guests = withDevices(values.guest.map(readGuest), values.vfio);
    if (role !== "node" && guests.length > 0) throw new UsageError(`--guest is for role node, and not for ${role}`);
    const settings = settingsOf(values, node);
    if (role === "launcher") {
      const socket = values.launcher ?? join(settings.runtimeDirectory, "launcher");
      return Effect.mapError(runLauncher(settings, socket), unforeseen);
    }
    // Whatever starts a guest in this process looks for it there.
    if (values.launcher !== null) process.env["GODWIT_LAUNCHER"] = values.launcher;
    return Effect.flatMap(programOf(role, id, settings, guests), (program) =>
      Effect.mapError(actorOf(settings, role, id, program), unforeseen),
    );
  },
});

const programOf = (
  role: Exclude<Role, "launcher">,
  id: string,
  settings: Settings,
  guests: ReadonlyArray<GuestArgument>,
): Effect.Effect<ActorProgram, GodwitError> =>
  role === "node"
    ? Effect.succeed(() => Effect.andThen(keepGuests(settings, guests), runInventory(settings)))
    : Effect.tryPromise({ try: () => loadProgram(role, id), catch: unforeseen });
