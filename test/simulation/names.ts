/** Names and sizes that all simulated actors share. */
export const GUEST = "vm1";
export const NODE_A = "a";
export const NODE_B = "b";
export const WORKERS = ["worker-0", "worker-1", "worker-2"] as const;
export const COORDINATORS = ["coordinator-0", "coordinator-1"] as const;
export const SENDER = "sender";
export const LOADER = "loader";
export const PAGE_BYTES = 4096;
/** Pages of the guest: several items a round, so that items of one round take different ways. */
export const PAGES = 400;
/** Where the loader hears which pages are missing. */
export const MISSING_ANSWER = "test.missing";
/** Says that a migration may converge which was held in precopy. */
export const LET_GO = "test.let-go";
export const MIGRATION = "00000000000000aa";
export const ROUTE = { migration: MIGRATION, source: NODE_A, destination: NODE_B };
