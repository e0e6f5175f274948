/** Names and sizes that all simulated actors share. */
export const NODE_A = "a";
export const NODE_B = "b";
export const WORKERS = ["worker-0", "worker-1", "worker-2"] as const;
export const COORDINATORS = ["coordinator-0", "coordinator-1"] as const;
export const SENDER = "sender";
export const LOADER = "loader";
export const PAGE_BYTES = 4096;
/** Pages of the guest: several items a round, so that items of one round take different ways. */
export const PAGES = 400;
/** Where the loader hears which pages of a migration's guest are missing. */
export const missingAnswer = (migration: string): string => `test.missing.${migration}`;
/** Where a migration's coordinator hears an operator's word; `let-go`: that one which was held in precopy may converge. */
export const word = (migration: string, what: "cancel" | "let-go" | "start-postcopy" | "give-up"): string =>
  `test.${what}.${migration}`;
