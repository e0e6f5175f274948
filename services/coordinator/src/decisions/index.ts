export * from "./adoption.ts";
export * from "./convergence.ts";
export { obstacleToGivingUp } from "./giving-up.ts";
export { infoOf, savedOf, statusOf } from "./info.ts";
export { makeMigration, step } from "./migration.ts";
export type * from "./migration-state.ts";
export { type Asked, chooseSource } from "./source-node.ts";
export { isSaved } from "./tenure.ts";
