import * as Effect from "effect/Effect";

/**
 * Feeds a state machine one event at a time. An event that comes while another is being handled waits for its end, so a step
 * never sees a half-made state; nothing else is queued, and a burst of a million acknowledgements costs a loop, not fibers.
 */
export const makeEventLoop = <E>(handle: (event: E) => void): ((event: E) => void) => {
  const waiting: E[] = [];
  let busy = false;
  return (event) => {
    waiting.push(event);
    if (busy) return;
    busy = true;
    try {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) handle(next);
    } finally {
      busy = false;
    }
  };
};

/** One alarm, set to the earliest of the times asked for; `ring` asks again for what it still wants. Times are ms since 1970. */
export interface Alarm {
  readonly wakeAt: (at: number) => void;
  readonly stop: () => void;
}

/** The longest a timer of Node's waits, ms; a longer one would ring at once. */
const TIMER_MS_MAX = 2 ** 31 - 1;

export const makeAlarm = (ring: () => void): Alarm => {
  let timer: NodeJS.Timeout | null = null;
  let due = Number.POSITIVE_INFINITY;
  const stop = (): void => {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    due = Number.POSITIVE_INFINITY;
  };
  const set = (): void => {
    const waits = Math.max(0, due - Date.now());
    timer = setTimeout(
      () => {
        // A part of a wait that no timer can do as a whole.
        if (waits > TIMER_MS_MAX) return set();
        stop();
        ring();
      },
      Math.min(TIMER_MS_MAX, waits),
    );
  };
  return {
    wakeAt: (at) => {
      if (at >= due) return;
      stop();
      due = at;
      set();
    },
    stop,
  };
};

/** Lets everything else that is due in this process come first: other messages, heartbeats, timers. */
export const nextTurn = Effect.callback<void>((resume) => {
  const handle = setImmediate(() => resume(Effect.void));
  return Effect.sync(() => clearImmediate(handle));
});
