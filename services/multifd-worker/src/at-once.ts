/**
 * For what somebody waits for: work is done within its arrival, before anything else has a turn. A turn of the event loop takes so much of
 * it; what is more waits for the next ones, so that heartbeats and timers come between.
 */
export interface AtOnce<A> {
  /** Drops what would be more than may wait. */
  readonly take: (item: A) => void;
  /** Nothing that waits is done any more. */
  readonly stop: () => void;
}

/** `work` must not throw. */
export const makeAtOnce = <A>(
  { perTurn, waitingMax }: { readonly perTurn: number; readonly waitingMax: number },
  work: (item: A) => void,
): AtOnce<A> => {
  let done = 0;
  let waiting: A[] = [];
  let next: NodeJS.Immediate | null = null;
  const doOne = (item: A): void => {
    next ??= setImmediate(turn);
    done++;
    work(item);
  };
  const turn = (): void => {
    next = null;
    done = 0;
    const due = waiting.slice(0, perTurn);
    waiting = waiting.slice(due.length);
    due.forEach(doOne);
  };
  return {
    take: (item) => {
      if (done < perTurn) doOne(item);
      else if (waiting.length < waitingMax) waiting.push(item);
    },
    stop: () => {
      waiting = [];
      if (next !== null) clearImmediate(next);
    },
  };
};
