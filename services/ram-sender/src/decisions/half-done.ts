import type { Source } from "./source-state.ts";

/**
 * Whether the guest stands still, or its record is half written, for no longer than this migration's switchover takes, or the coordinator has not
 * heard how that ended (then the migration is forgotten): a sender that is to end ends that first. Not so where an operator or the destination decides how long it takes.
 */
export const isHalfDone = ({ phase }: Pick<Source, "phase">): boolean => {
  switch (phase._tag) {
    case "Stopping":
    case "StoppingDevices":
    case "SavingDeviceState":
    case "FinalSync":
    case "SavingDevices":
    case "Switching":
    case "AwaitingCommit":
    case "TakingBack":
    case "ReleasingDevices":
    case "Resuming":
    case "Releasing":
    case "Losing":
    case "Discarding":
    case "Ended":
      return true;
    case "Claiming":
    case "Claimed":
    case "OpeningTracker":
    case "Precopy":
    case "PreSwitchover":
    case "Serving":
      return false;
  }
};
