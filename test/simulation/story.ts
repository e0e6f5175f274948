/** A run told line by line, for who must understand what went wrong in it: bulk left out, repetitions counted. */
import { type RunOptions, run } from "./run.ts";

/** Lines of an ordinary story; the end of a longer one is what matters. */
const LINES_MAX = 400;

/** What moves pages comes by the thousand and tells little. */
const isBulk = (what: string, detail: string): boolean =>
  what === "deliver" && /\.(ch\.\d+|ack|work) /.test(`${detail} `);

/** The story of a seed, and how it ended. */
export const tell = (seed: number, options: RunOptions = {}): string => {
  const lines: Array<{ readonly text: string; readonly at: number; times: number }> = [];
  const note = (at: number, text: string): void => {
    const last = lines.at(-1);
    if (last?.text === text) last.times++;
    else lines.push({ at, text, times: 1 });
  };
  let ending: string;
  try {
    const outcome = run(seed, {
      ...options,
      trace: (at, what, actor, detail) => {
        if (!isBulk(what, detail)) note(at, `${what.padEnd(10)} ${actor.padEnd(14)} ${detail}`);
      },
    });
    ending = `${outcome.ended}, and the guest runs at the ${outcome.runsAt}`;
  } catch (error) {
    ending = `VIOLATION: ${error instanceof Error ? error.message : error}`;
  }
  const shown = lines.slice(-LINES_MAX).map(({ at, text, times }) => {
    const line = `${at.toFixed(1).padStart(10)} ms  ${text}`;
    return times === 1 ? line : `${line}  (${times} times)`;
  });
  const left = lines.length - shown.length;
  return [`seed ${seed}`, ...(left > 0 ? [`(${left} lines before)`] : []), ...shown, ending].join("\n");
};
