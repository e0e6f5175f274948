/** Which session of this agent a command is for. */
import type { VfioCommand } from "@godwit/protocol";

/** What is known of a session, whichever side it is of. */
export interface Known {
  readonly role: VfioCommand["_tag"];
  readonly migration: string;
  readonly epoch: number;
  readonly guest: string;
}

export type Routed =
  /** A session of the same guest and role, older than this: it is ended first; `begin` follows. */
  | { readonly _tag: "Begin"; readonly replaces: ReadonlyArray<Known> }
  | { readonly _tag: "Step"; readonly session: Known }
  /** This process knows nothing of what was begun under this epoch: it was restarted, and says so. */
  | { readonly _tag: "Unknown" }
  /** From an attempt that was fenced off by a higher epoch (O1, R7). */
  | { readonly _tag: "Ignore" };

/** Stages that go on with what this very process has begun. The others lead devices back, or on, from wherever they are. */
const GOES_ON: ReadonlyArray<VfioCommand["stage"]> = ["stopped", "loaded"];
/** What an attempt begins with. Who has heard of this session before names the process that had it. */
const BEGINS: ReadonlyArray<VfioCommand["stage"]> = ["precopy", "ready"];

export const route = (sessions: ReadonlyArray<Known>, incarnation: string, command: VfioCommand): Routed => {
  const ofGuest = sessions.filter(({ role, guest }) => role === command._tag && guest === command.guest);
  if (ofGuest.some(({ epoch }) => epoch > command.epoch)) return { _tag: "Ignore" };
  const session = ofGuest.find(({ migration, epoch }) => migration === command.migration && epoch === command.epoch);
  if (session !== undefined) return { _tag: "Step", session };
  const { stage, agent } = command;
  const wasAnothers = agent !== undefined && agent !== incarnation;
  if (GOES_ON.includes(stage) || (BEGINS.includes(stage) && wasAnothers)) return { _tag: "Unknown" };
  return { _tag: "Begin", replaces: ofGuest };
};
