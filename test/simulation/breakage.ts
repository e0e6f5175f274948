/** Protections that a run can leave out, to show that the invariants notice. */
export type Breakage =
  | "no round fence"
  | "no epoch check"
  | "acknowledge before applying"
  | "clear the dirty bitmap late"
  | "start without compare-and-set"
  | "an unknown answer is taken for a yes";
