export type { Child, ChildSpec, LogTarget } from "./actor-child.ts";
export { runInventory } from "./inventory.ts";
export { DEFAULT_WORKERS, type NodeOptions, runNode } from "./service.ts";
export { supervise } from "./supervision.ts";
