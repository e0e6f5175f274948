import type { Destination } from "./destination-state.ts";

/**
 * Whether the guest is being taken over, or thrown away, which takes no longer than a switchover, or the coordinator has not heard how that
 * ended: a loader that is to end ends that first. Not so while pages come, be it before the guest runs or after.
 */
export const isHalfDone = ({ phase, concluded }: Pick<Destination, "phase" | "concluded">): boolean => {
  switch (phase._tag) {
    case "Yielding":
    case "Expecting":
    case "Loading":
    case "Committing":
    case "StartingDevices":
    case "Starting":
    case "Closing":
    case "Discarding":
      return true;
    case "Running":
    case "Lost":
    case "Failed":
      return !concluded;
    case "Preparing":
    case "PreparingDevices":
    case "Ready":
    case "Paging":
      return false;
  }
};
