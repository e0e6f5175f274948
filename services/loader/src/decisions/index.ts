export { differences, type Present } from "./agreement.ts";
export { admit, begin, isOver, makeDestination, mayForget, pagesOf, step } from "./destination.ts";
export type * from "./destination-state.ts";
export * as Fence from "./fence.ts";
export { infoOf, isIdle, type Loader, type Routed, reportOf, route } from "./loader.ts";
export { type Recovery, recover } from "./recovery.ts";
