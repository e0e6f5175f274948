import { type Progress, progressLine } from "./progress.ts";

/** Where progress is shown. A log, a pipe or a CI job gets whole lines, of this width. */
export type Screen = { readonly _tag: "Terminal"; readonly columns: number } | { readonly _tag: "Lines" };

/** What has been shown so far. */
export type Shown =
  | { readonly _tag: "Nothing" }
  | { readonly _tag: "Something"; readonly status: string; readonly round: number; readonly text: string };

export const nothingShown: Shown = { _tag: "Nothing" };

/** Columns of a line that no terminal limits. */
const LINES_COLUMNS = 200;
/** Back to the first column, and clear to the end of the line. */
const CLEAR = "\r\u001b[K";

/**
 * What to write for `progress` after what has been shown. On a terminal one line that is overwritten; elsewhere a line of its own
 * whenever the status or the round changes, so that a log of a long migration stays short.
 */
export const showProgress = (
  shown: Shown,
  progress: Progress,
  screen: Screen,
): { readonly shown: Shown; readonly output: string } => {
  const { status, round } = progress;
  if (screen._tag === "Terminal") {
    const text = progressLine(progress, screen.columns);
    const same = shown._tag === "Something" && shown.text === text;
    return { shown: { _tag: "Something", status, round, text }, output: same ? "" : CLEAR + text };
  }
  if (shown._tag === "Something" && shown.status === status && shown.round === round) return { shown, output: "" };
  // A pipe has no use for a bar: the line begins with the status.
  const text = progressLine(progress, LINES_COLUMNS).replace(/^\[[#-]*\] /, "");
  return { shown: { _tag: "Something", status, round, text }, output: `${text}\n` };
};

/** What to write before anything else (a summary, an error, the shell's prompt) may follow. */
export const endProgress = (shown: Shown, screen: Screen): string =>
  screen._tag === "Terminal" && shown._tag === "Something" ? CLEAR : "";
