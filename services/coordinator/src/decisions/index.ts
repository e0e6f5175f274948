export * from "./convergence.ts";
export { infoOf, statusOf } from "./info.ts";
export { makeMigration, step } from "./migration.ts";
export type * from "./migration-state.ts";
