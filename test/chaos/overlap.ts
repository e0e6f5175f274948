/** Looks all the time whether the guest runs twice: the one thing that must never be, not even for an instant. */
import type { GuestProcess } from "../integration/guest-process.ts";
import { runStateOf } from "../integration/world.ts";
import type { Arena } from "./arena.ts";

/** Between two looks, ms: copies that both ran for longer than this and a look are found. */
const LOOK_AGAIN_MS = 40;

export interface Watch {
  /** Looks at once, too: called with each sign of the switchover. */
  readonly look: () => void;
  /** Ends the watch; what it has found, one line for each finding. */
  readonly end: () => Promise<ReadonlyArray<string>>;
  readonly looks: () => number;
}

const running = async (
  { world }: Arena,
  processes: ReadonlyArray<GuestProcess>,
): Promise<ReadonlyArray<GuestProcess>> => {
  const states = await Promise.all(processes.map(({ spec }) => runStateOf(world, spec)));
  return processes.filter((_, at) => states[at] === "running");
};

/**
 * Null, or what is wrong. Answers come one after the other, so the first look may have seen the source before the hand-over and the
 * destination after it; of those that ran then, no two can run at a second look: nothing goes back within one hand-over.
 */
export const runsTwice = async (arena: Arena): Promise<string | null> => {
  const processes = arena.world.processesOf(arena.guest);
  if (processes.length < 2) return null;
  const first = await running(arena, processes);
  if (first.length < 2) return null;
  const second = await running(arena, first);
  if (second.length < 2) return null;
  return `the guest runs ${second.length} times: ${second.map(({ node, spec }) => `pid ${spec.pid} at node ${node}`).join(" and ")}`;
};

export const watchOverlap = (arena: Arena): Watch => {
  const found = new Set<string>();
  let looks = 0;
  let over = false;
  let wake = (): void => undefined;
  const watch = async (): Promise<void> => {
    while (!over) {
      looks++;
      const wrong = await runsTwice(arena);
      if (wrong !== null) found.add(wrong);
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, LOOK_AGAIN_MS);
      });
    }
  };
  const watching = watch();
  return {
    look: () => wake(),
    looks: () => looks,
    end: async () => {
      over = true;
      wake();
      await watching;
      return [...found];
    },
  };
};
