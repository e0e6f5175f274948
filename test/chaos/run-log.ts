/** What happened in a run, line by line, with its time: the first thing to read after a violation. */
export interface RunLog {
  readonly note: (line: string) => void;
  readonly lines: () => ReadonlyArray<string>;
}

export const makeRunLog = (): RunLog => {
  const beganAt = Date.now();
  const lines: string[] = [];
  return {
    note: (line) => void lines.push(`${String(Date.now() - beganAt).padStart(6)} ms  ${line}`),
    lines: () => lines,
  };
};
