/** Runs Spin on a model: Promela -> C -> a program that visits every state, or ends at the first that breaks a property. */
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** States are 117 bytes each; the limit is far above what any run here needs. */
const MEMORY_MIB_MAX = 4000;
/** Steps of one run of the model: the deepest has 268. */
const DEPTH_MAX = 100_000;
/** What stops a search that would not end, ms. */
const SEARCH_MS_MAX = 120_000;

/** Programs that a check needs and that are not in PATH. */
export const missingPrograms = (): ReadonlyArray<string> =>
  ["spin", "gcc"].filter((program) => spawnSync(program, ["--version"], { stdio: "ignore" }).error !== undefined);

export interface Verdict {
  /** Every state was visited: none was left out for lack of depth, memory or time. */
  readonly exhaustive: boolean;
  readonly states: number;
  /** Longest run that was followed, steps. */
  readonly depth: number;
  readonly seconds: number;
  /** The property that a state broke; null when none did. */
  readonly violated: string | null;
  /** What the search said, for a failed test. */
  readonly output: string;
}

/** `optimize`: worth its seconds only for a search that takes longer. */
export const verify = async (
  model: string,
  definitions: Readonly<Record<string, string | number>>,
  optimize: "for a long search" | "no",
): Promise<Verdict> => {
  const directory = mkdtempSync(join(tmpdir(), "godwit-model-"));
  const options = { cwd: directory, timeout: SEARCH_MS_MAX };
  try {
    const flags = Object.entries(definitions).map(([name, value]) => `-D${name}=${value}`);
    await run("spin", [...flags, "-a", model], options);
    const level = optimize === "no" ? "-O0" : "-O2";
    const compiling = ["-w", "-DSAFETY", "-DNOFAIR", "-DVECTORSZ=512", `-DMEMLIM=${MEMORY_MIB_MAX}`];
    await run("gcc", [level, ...compiling, "-o", "pan", "pan.c"], options);
    const startedAt = performance.now();
    const { stdout } = await run(join(directory, "pan"), [`-m${DEPTH_MAX}`], options);
    return parse(stdout, (performance.now() - startedAt) / 1000);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
};

/** Reads what the search printed. `Warning` covers all that makes it incomplete: depth, memory, a stop at an error. */
export const parse = (output: string, seconds: number): Verdict => {
  const errors = numberIn(output, /errors: (\d+)/);
  return {
    exhaustive:
      errors === 0 &&
      output.includes("Full statespace search") &&
      !/Warning|too small|out of memory|pan: reached/.test(output),
    states: numberIn(output, /([\d.e+]+) states, stored/),
    depth: numberIn(output, /depth reached (\d+)/),
    seconds,
    violated: /^pan:\d+: (?:assertion violated )?(.+?) \(at depth \d+\)/m.exec(output)?.[1] ?? null,
    output,
  };
};

const numberIn = (output: string, pattern: RegExp): number => Number(pattern.exec(output)?.[1] ?? Number.NaN);
