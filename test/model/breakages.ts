/** Protections of the hand-off that the model can leave out, each with the property that must be seen to break. */

export type Property =
  | "one_guest_at_most"
  | "memory_is_equal"
  | "loaded_memory_is_left_alone"
  | "device_state_is_whole"
  | "there_is_a_way_out";

/** Bounds of a run of the model: how much happens, how much goes wrong. */
export type Bounds = Readonly<Record<string, number>>;

/** The least in which anything breaks: one attempt, one write, no faults but those of the bus. */
export const SMALLEST: Bounds = {
  ATTEMPTS: 1,
  ROUNDS: 3,
  WRITES: 1,
  SENDER_DEATHS: 0,
  LOADER_DEATHS: 0,
  FENCINGS: 0,
  STALE_READS: 0,
};

export interface Breakage {
  /** As README.md lists it; defined, it leaves the protection out. */
  readonly flag: string;
  readonly breaks: Property;
  /** What must happen beside the smallest. */
  readonly bounds?: Bounds;
}

const LOADER_DIES: Bounds = { LOADER_DEATHS: 1 };

export const BREAKAGES: ReadonlyArray<Breakage> = [
  { flag: "NO_ROUND_FENCE", breaks: "memory_is_equal" },
  { flag: "NO_EPOCH_CHECK", breaks: "memory_is_equal", bounds: { ATTEMPTS: 2 } },
  { flag: "ACKNOWLEDGE_EARLY", breaks: "memory_is_equal" },
  { flag: "CLEAR_AFTER_READ", breaks: "memory_is_equal" },
  { flag: "UNNUMBERED_SLICES", breaks: "device_state_is_whole" },
  { flag: "GUESS_LOST_REPLY", breaks: "one_guest_at_most" },
  { flag: "START_WITHOUT_WRITE", breaks: "one_guest_at_most" },
  { flag: "RESUME_WITHOUT_WRITE", breaks: "one_guest_at_most" },
  { flag: "TRUST_STALE_READ", breaks: "one_guest_at_most", bounds: { SENDER_DEATHS: 1 } },
  { flag: "TWO_SENDERS", breaks: "one_guest_at_most", bounds: { ATTEMPTS: 2, SENDER_DEATHS: 1 } },
  { flag: "NO_TAKE_BACK", breaks: "there_is_a_way_out" },
  { flag: "NO_GOING_ON", breaks: "there_is_a_way_out", bounds: { FENCINGS: 1 } },
  { flag: "NO_INCARNATION_CHECK", breaks: "memory_is_equal", bounds: LOADER_DIES },
  { flag: "NO_LOADER_RECOVERY", breaks: "there_is_a_way_out", bounds: LOADER_DIES },
  { flag: "LATE_PREPARE", breaks: "there_is_a_way_out", bounds: LOADER_DIES },
  { flag: "FORGET_FENCE", breaks: "memory_is_equal", bounds: LOADER_DIES },
  { flag: "TORN_FENCE_FILE", breaks: "memory_is_equal", bounds: LOADER_DIES },
  { flag: "NOTE_BEFORE_APPLY", breaks: "memory_is_equal", bounds: LOADER_DIES },
  { flag: "TWO_LOADERS", breaks: "memory_is_equal", bounds: LOADER_DIES },
  { flag: "APPLY_COPIES", breaks: "loaded_memory_is_left_alone", bounds: LOADER_DIES },
  { flag: "EMPTY_DEVICE_FILE", breaks: "device_state_is_whole", bounds: LOADER_DIES },
  { flag: "ABANDON_RESUMED", breaks: "there_is_a_way_out", bounds: LOADER_DIES },
  { flag: "NO_SECOND_LOOK", breaks: "there_is_a_way_out", bounds: LOADER_DIES },
];
