/** `godwit register`: guests that came after their node. */
import { defaultGuestDirectory, defaultRuntimeDirectory } from "@godwit/actor";
import { openRegistry, type Registry } from "@godwit/guest";
import type { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command } from "../arguments/command.ts";
import { DEVICE_HELP, deviceOption, withDevices } from "../arguments/device-argument.ts";
import { GUEST_HELP, readGuest } from "../arguments/guest-argument.ts";
import { text } from "../arguments/option.ts";
import { natsOptions, onNats } from "../connection.ts";
import { keepGuests } from "../host/guests.ts";
import { hostOptions, nodeOfHost } from "../host/host-options.ts";
import { checkedName } from "../host/host-settings.ts";
import { movingGuest } from "../host/moving-guest.ts";
import { unforeseen } from "../reporting/failure.ts";

export const register = command({
  operands: { usage: "NAME=DRIVER:...", min: 1, max: 1000 },
  options: {
    node: text("NAME", "the host (default: this host's name)"),
    vfio: deviceOption,
    "runtime-dir": hostOptions["runtime-dir"],
    "guest-dir": hostOptions["guest-dir"],
    ...natsOptions,
  },
  notes:
    () => `To be run on the host, with the options that its actors were started with. A guest that is registered already is replaced, unless
a migration has it in hand; a guest that moves is registered at its destination, and forgotten at its source, by the migration itself.
For QEMUs neither NATS nor credentials are needed. A builtin guest is started, and stays.

${GUEST_HELP}
${DEVICE_HELP}`,
  run: ({ values, operands }) => {
    const node = checkedName("the node's name", values.node ?? nodeOfHost());
    const guests = withDevices(operands.map(readGuest), values.vfio);
    const runtimeDirectory = values["runtime-dir"] ?? defaultRuntimeDirectory(node);
    const host = { node, runtimeDirectory, guestDirectory: values["guest-dir"] ?? defaultGuestDirectory(node) };
    const waiting = guests.filter((guest) => guest.driver === "qemu");
    const started = guests.filter((guest) => guest.driver === "builtin");
    return Effect.gen(function* () {
      const registry = yield* Effect.try({ try: () => openRegistry(runtimeDirectory), catch: unforeseen });
      for (const { name } of guests) yield* requireStill(registry, name);
      for (const guest of waiting) registry.put(guest);
      if (started.length > 0) yield* onNats(values, keepGuests(host, started));
      const names = guests.map(({ name }) => name).filter((name) => registry.find(name) !== null);
      return { document: { node, guests: names }, text: `node ${node} has ${names.join(", ") || "none of them"}\n` };
    });
  },
});

/** What a migration has in hand it writes down itself. */
const requireStill = (registry: Registry, guest: string): Effect.Effect<void, GodwitError> =>
  Effect.suspend(() => {
    const { moving } = registry.find(guest) ?? {};
    return moving === undefined ? Effect.void : Effect.fail(movingGuest(guest, moving, "register"));
  });
