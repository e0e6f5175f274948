export { admit } from "./admission.ts";
export { differences, type Present } from "./agreement.ts";
export { begin, isOver, mayForget, step } from "./destination.ts";
export * from "./destination-state.ts";
export { holdsMemory, promisedStreams } from "./devices.ts";
export * as Fence from "./fence.ts";
export { FILL_ROUND, type Fill, type FillBlock, type FillEffect, type FillEvent, makeFill, stepFill } from "./fill.ts";
export { isHalfDone } from "./half-done.ts";
export { addLatency, type Latencies, type LatencySummary, makeLatencies, summaryOf } from "./latencies.ts";
export { infoOf, isIdle, type Loader, type Routed, reportOf, route } from "./loader.ts";
export {
  alreadyThere,
  CHUNK_PAGES_MAX,
  handBack,
  makePager,
  nextWork,
  type Pager,
  type PagerWork,
  touch,
} from "./pager.ts";
export {
  isExpected,
  makePostcopy,
  type Postcopy,
  type PostcopyBlock,
  type PostcopyEffect,
  type PostcopyEvent,
  stepPostcopy,
  type Way,
  wayOf,
} from "./postcopy.ts";
export { postcopyInfoOf } from "./postcopy-info.ts";
export { type Recovery, recover } from "./recovery.ts";
export { mayRestore } from "./restore-claim.ts";
