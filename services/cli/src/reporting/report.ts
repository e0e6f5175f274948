/** Where a command says what it does: stdout for the human or for one JSON document, stderr for what must not be in between. */
import type { MigrationInfo } from "@godwit/protocol";
import { endProgress, nothingShown, type Screen, type Shown, showProgress } from "../terminal/live-line.ts";
import type { Progress } from "../terminal/progress.ts";
import { progressOf } from "./migration-view.ts";
import { openPace } from "./pace.ts";

export interface Report {
  readonly json: boolean;
  /** A line for the human; with `--json` it goes to stderr. */
  readonly say: (line: string) => void;
  /** A line on stderr in any case. */
  readonly note: (line: string) => void;
  /** The migration at this moment: a live line on a terminal, else a line for each status and round. */
  readonly progress: (info: MigrationInfo) => void;
  /** The same for whatever else takes its time. */
  readonly show: (progress: Progress) => void;
  /** The one answer: the document with `--json`, else the text. Only the first one is printed. */
  readonly answer: (document: unknown, text: string) => void;
  /** Resolves once what was answered has left this process, or cannot leave it. */
  readonly flushed: () => Promise<void>;
}

/** What a terminal counts as that does not say how wide it is, characters. */
const COLUMNS_UNKNOWN = 80;
/** How long a reader of a pipe may take to take the rest, ms; then it is no longer waited for. */
const FLUSH_MS = 2000;

export const openReport = (json: boolean): Report => {
  const human = json ? process.stderr : process.stdout;
  const screen = (): Screen =>
    human.isTTY ? { _tag: "Terminal", columns: human.columns || COLUMNS_UNKNOWN } : { _tag: "Lines" };
  let shown: Shown = nothingShown;
  let answered = false;
  const pace = openPace();
  for (const stream of [process.stdout, process.stderr]) {
    // `godwit guests | head`, or a terminal that was closed: whoever read has gone, and what was begun is still ended orderly.
    stream.on("error", () => {});
  }
  const clear = (): void => {
    const output = endProgress(shown, screen());
    shown = nothingShown;
    if (output !== "") human.write(output);
  };
  const show = (progress: Progress): void => {
    const next = showProgress(shown, progress, screen());
    shown = next.shown;
    if (next.output !== "") human.write(next.output);
  };
  const line = (stream: NodeJS.WriteStream, text: string): void => {
    clear();
    stream.write(`${text}\n`);
  };
  return {
    json,
    say: (text) => line(human, text),
    note: (text) => line(process.stderr, text),
    progress: (info) => show(progressOf(info, pace(info))),
    show,
    answer: (document, text) => {
      clear();
      if (answered) return;
      answered = true;
      if (json) process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
      else process.stdout.write(text);
    },
    flushed: () => flushed([process.stdout, process.stderr]),
  };
};

const flushed = async (streams: ReadonlyArray<NodeJS.WriteStream>): Promise<void> => {
  const written = streams.map((stream) => new Promise<void>((resolve) => stream.write("", () => resolve())));
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, FLUSH_MS);
  });
  await Promise.race([Promise.all(written), late]);
  clearTimeout(timer);
};
