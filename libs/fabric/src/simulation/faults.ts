/** How badly the simulated network behaves. Rates are probabilities per message or per write, from 0 to 1. */
export interface Faults {
  /** How long a message takes, ms, evenly spread. */
  delayMs: { min: number; max: number };
  dropRate: number;
  duplicateRate: number;
  /** A reordered message does not wait for those before it from the same sender, and takes up to `reorderMs` longer. */
  reorderRate: number;
  reorderMs: number;
  /** A message on a stream finds that it breaks. */
  breakRate: number;
  register: RegisterFaults;
}

export interface RegisterFaults {
  /** The write is done (or refused) and its answer is lost. */
  lostAnswerRate: number;
  /** The write lands up to `lateMs` later, perhaps after its author has given up. */
  lateWriteRate: number;
  lateMs: number;
  /** A read shows one of the last few values instead of the last. */
  staleReadRate: number;
}

/** A quiet loopback network: the delays are those of NATS on one machine, ms. */
export const QUIET: Faults = {
  delayMs: { min: 0.1, max: 0.4 },
  dropRate: 0,
  duplicateRate: 0,
  reorderRate: 0,
  reorderMs: 20,
  breakRate: 0,
  register: { lostAnswerRate: 0, lateWriteRate: 0, lateMs: 2_000, staleReadRate: 0 },
};

/** Everything at once, much denser than life. */
export const STORMY: Faults = {
  delayMs: { min: 0.1, max: 5 },
  dropRate: 0.05,
  duplicateRate: 0.05,
  reorderRate: 0.1,
  reorderMs: 50,
  breakRate: 0.02,
  register: { lostAnswerRate: 0.1, lateWriteRate: 0.1, lateMs: 2_000, staleReadRate: 0.1 },
};
