/** What the destination measures of a switchover: from hearing that the record says `switching` to the guest running. */
import { arcPartsOf, lap, partsOf, totalOf, type Waterfall } from "@godwit/protocol";
import type { Destination, DestinationEvent } from "./destination-state.ts";
import { holdsMemory } from "./devices.ts";

/** A step has ended, at `us` of this host's monotonic clock. */
export const note = (destination: Destination, event: DestinationEvent, us: number): void => {
  const { laps } = destination;
  if (laps.endedAt !== null) return;
  if (laps.begun.length === 0 && !isTold(destination, event)) return;
  lap(laps, partOf(destination), us);
};

const isTold = ({ phase, epoch, promise }: Destination, event: DestinationEvent): boolean =>
  promise !== null || (event._tag === "SwitchingTold" && event.epoch === epoch && phase._tag === "Ready");

/** null: none of it, any more. */
const partOf = (destination: Destination): string | null => {
  const { phase, promise, postcopy } = destination;
  switch (phase._tag) {
    case "Ready":
      if (promise === null) return "read-record";
      return holdsMemory(destination) && postcopy?.isKnown !== false ? "load-devices" : "final-round";
    case "Expecting":
      return "expect-pages";
    case "Loading":
      return "load-device-state";
    case "Committing":
      return "commit";
    case "StartingDevices":
      return "start-devices";
    case "Starting":
      return "start";
    default:
      return null;
  }
};

/** null: it was not told yet. */
export const waterfallOf = ({ laps, devices }: Destination): Waterfall | null => {
  if (laps.begun.length === 0) return null;
  const total = totalOf(laps);
  return {
    parts: [...partsOf(laps, "destination"), ...arcPartsOf(laps, "destination", devices?.report?.devices ?? [])],
    ...(total === null ? {} : { total }),
  };
};
