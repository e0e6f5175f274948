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
/** Where the loader hears which pages of a migration's guest are missing, where its coordinator hears that it is cancelled, and that it may converge, where it was held in precopy. */
export const missingAnswer = (migration: string): string => `test.missing.${migration}`;
export const cancelling = (migration: string): string => `test.cancel.${migration}`;
export const lettingGo = (migration: string): string => `test.let-go.${migration}`;
