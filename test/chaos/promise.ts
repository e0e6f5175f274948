/** What an operator may expect of each fault. Safety (the guest runs once, memory right, one plain ending) is promised for all of them, always. */
import { type Actor, type CheckpointPhase, type Combination, isOfCheckpoint } from "./fault.ts";

export interface Promised {
  readonly text: string;
  /** Nothing less than completion; otherwise the guest may also be back at the source, with a reason, for another try. */
  readonly completes: boolean;
}

const EITHER = "completes, or back at the source with a reason";

const completes = (text: string): Promised => ({ text, completes: true });
const either = (text: string): Promised => ({ text, completes: false });

const sender = ({ kind, phase }: Combination): Promised => {
  if (phase === "running") return completes("completes; the source is tidied late");
  if (phase === "switching" || phase === "loading" || phase === "committing")
    return either(`the record decides: ${EITHER}`);
  if (kind === "kill") return either("another attempt, everything is sent again; the guest runs on meanwhile");
  return either("goes on when it is back, at the deadline back at the source");
};

const loader = ({ kind, phase }: Combination): Promised => {
  if (phase === "running") return completes("completes; the guest needs no loader any more");
  if (phase === "committing") return either("the record decides; a successor starts the guest if it was won");
  if (phase === "switching" || phase === "loading") return either(`the guest stands still meanwhile: ${EITHER}`);
  if (kind === "kill") return either("goes on with its successor, or by another attempt");
  return either("goes on when it is back, at the deadline back at the source");
};

const agent =
  (side: "source" | "destination") =>
  ({ kind, phase }: Combination): Promised => {
    if (phase === "running") return completes(side === "source" ? "completes; the source is tidied late" : "completes");
    if (phase === "committing") return either("the record decides; a successor starts the devices if it was won");
    if (phase === "first pass" || phase === "later pass")
      return kind === "kill"
        ? completes("another attempt, the devices are sent again")
        : either("goes on when it is back");
    if (phase === "setup") return either("goes on when it is back, or by another attempt");
    return either("the switchover is undone, devices run again, then another attempt");
  };

const nats = ({ phase }: Combination): Promised => {
  if (phase === "switching" || phase === "loading" || phase === "committing")
    return either("nobody may run the guest until the record can be reached; then it completes or is taken back");
  if (phase === "running") return completes("completes; the destination runs on");
  return either("the guest runs on; what was on its way is sent again");
};

const PROMISES: Record<Actor, (combination: Combination) => Promised> = {
  "coordinator (owner)": ({ phase }) =>
    completes(
      phase === "setup"
        ? "the other replica takes over, with another attempt where this one had not begun"
        : phase === "running"
          ? "completes; its word comes late"
          : "the other replica takes over; the bytes move on meanwhile",
    ),
  "coordinator (other)": () => completes("unnoticed"),
  "RAM sender": sender,
  loader,
  "VFIO agent (source)": agent("source"),
  "VFIO agent (destination)": agent("destination"),
  "multifd worker": () => completes("unnoticed, within the same attempt: its items go to other workers"),
  NATS: nats,
};

const inPostcopy = ({ actor }: Combination): Promised =>
  completes(
    actor.startsWith("VFIO") || actor === "coordinator (other)"
      ? "unnoticed"
      : actor === "coordinator (owner)"
        ? "the other replica takes over; the pages move on meanwhile"
        : "the guest waits for what it touches, and goes on by itself; nothing can be undone, and nothing is lost",
  );

const ofCheckpoint = ({ actor, kind }: Combination, phase: CheckpointPhase): Promised => {
  if (actor === "multifd worker") return completes("unnoticed: its items go to other workers");
  if (phase === "paging") return completes("the guest waits for what it touches, and goes on by itself");
  if (phase === "saving" && actor === "RAM sender" && kind === "kill")
    return completes("the save ends, the guest runs on, the old checkpoint stays");
  if (phase === "saving") return completes("the save goes on, or ends with a reason; the guest runs on");
  if (actor === "loader" && kind === "kill") return completes("the restore ends, and works when it is asked for again");
  return completes("goes on when it is back, or ends with a reason and works when it is asked for again");
};

export const promiseOf = (combination: Combination): Promised => {
  if (isOfCheckpoint(combination.phase)) return ofCheckpoint(combination, combination.phase);
  if (combination.phase === "cancelling")
    return either("cancelled, the guest runs on at the source; or completed, where the hand-over was first");
  return combination.phase === "postcopy" ? inPostcopy(combination) : PROMISES[combination.actor](combination);
};
