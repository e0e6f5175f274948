/** Which dirty tracker sees everything that is written into a guest's memory: also what its devices write past the processors. */
import type { Failure, Offer, Parameters } from "@godwit/protocol";

type Kind = Parameters["dirty-tracker"];

/**
 * userfaultfd and soft-dirty see what processors write through a mapping. What a device writes by DMA is known if it logs it, and the
 * guest's memory can be named to it (a builtin guest's; nobody tells a QEMU guest's layout). Otherwise only a comparison finds it.
 * Simulated devices say themselves whether they write. Returns the tracker to open, or why the one that was asked for would lose pages.
 */
export const chooseTracker = (asked: Kind, offer: Pick<Offer, "driver" | "devices"> | null): Kind | Failure => {
  const silent = (offer?.devices ?? []).filter(
    (device) => device.provider !== "simulated" && (offer?.driver === "qemu" || !device["dirty-logging"]),
  );
  if (silent.length === 0 || asked === "content") return asked;
  if (asked === "auto") return "content";
  const names = silent.map(({ device }) => device).join(", ");
  return {
    code: "tracker-failed",
    actor: "ram-sender",
    side: "source",
    step: "open the tracker",
    reason: `tracker ${asked} does not see what device ${names} writes into the guest's memory, and the device does not log it; use dirty-tracker=content or auto`,
  };
};
