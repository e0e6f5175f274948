/** Which packets may still touch the memory of an incoming guest. */
import type { Address, Packet } from "@godwit/protocol";
import type { Destination } from "./destination-state.ts";
import * as Fence from "./fence.ts";

/**
 * Whether a packet may touch memory now. Only in Ready: once everything promised is here the memory belongs to the device state,
 * and soon to the running guest; a late copy of a page would overwrite what the guest has written since. So it is for a session
 * whose former life had loaded the device state, until the record says how it stands. In a postcopy the pages are
 * asked for, once it is known which are missing: what comes unasked is of before.
 */
export const admit = (
  destination: Destination,
  packet: Address & Pick<Packet, "kind">,
): Fence.Verdict | "not receiving" =>
  destination.phase._tag === "Ready" &&
  !destination.mayBeCommitted &&
  (destination.postcopy === null || packet.kind === "slice")
    ? Fence.admit(destination.fence, packet)
    : "not receiving";
