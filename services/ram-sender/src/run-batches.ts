import { PACKET_PAGES_MAX } from "@godwit/protocol";

/** Runs that make one event: scattered ones by the hundred, so that each costs a bit and no step of its own, */
const BATCH_RUNS = 256;
/** but no more pages than some packets hold, so that sending starts while the scan goes on. */
const BATCH_PAGES = 8 * PACKET_PAGES_MAX;

/**
 * When runs are handed out that do not fill a batch. `at the end`: with `flush`, so that packets are full. `each turn`: also when the
 * event loop has taken in what came together, so that a few pages do not wait for a scan that goes on: while a guest stands still.
 */
export type Patience = "at the end" | "each turn";

/** Gathers runs of one block until there are enough of them. `flush` hands out the rest. */
export const batchRuns = (out: (block: number, runs: ReadonlyArray<number>) => void, patience: Patience) => {
  let block = 0;
  let runs: number[] = [];
  let pages = 0;
  let turn: NodeJS.Immediate | null = null;
  const flush = (): void => {
    if (turn !== null) clearImmediate(turn);
    turn = null;
    if (runs.length > 0) out(block, runs);
    runs = [];
    pages = 0;
  };
  const add = (ofBlock: number, firstPage: number, count: number): void => {
    if (ofBlock !== block) flush();
    block = ofBlock;
    runs.push(firstPage, count);
    pages += count;
    if (runs.length >= 2 * BATCH_RUNS || pages >= BATCH_PAGES) flush();
    else if (patience === "each turn") turn ??= setImmediate(flush);
  };
  return { add, flush };
};
