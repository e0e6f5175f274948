/** `godwit` as an operator runs it: a process, its exit code, and what it left behind. */
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { programFile } from "@godwit/host";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const mainOf = (root: string): string => {
  const source = join(root, "services/cli/src/main.ts");
  return root === ROOT ? programFile(pathToFileURL(source)) : source;
};

export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Started {
  readonly pid: number;
  /** Resolves once the text stands in what it has printed so far, on stdout or stderr; rejects when it ends before. */
  readonly printed: (text: string) => Promise<void>;
  /** What stands on stdout so far. */
  readonly stdout: () => string;
  readonly kill: (signal: NodeJS.Signals) => void;
  readonly finished: Promise<Finished>;
}

export interface RunOptions {
  /** On top of this process's own variables, of which those of godwit are left out. */
  readonly environment?: Readonly<Record<string, string>>;
  /** A process group of its own, as a terminal's job has: `kill` then reaches all of it, as Ctrl-C does. */
  readonly job?: boolean;
  /** Another clone than this one. */
  readonly root?: string;
}

const environmentWith = (more: Readonly<Record<string, string>>): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("GODWIT_"))),
  NODE_COMPILE_CACHE: join(ROOT, ".cache", "compiled"),
  GODWIT_PROGRAMS: process.env["GODWIT_PROGRAMS"],
  ...more,
});

export const start = (
  args: ReadonlyArray<string>,
  { environment = {}, job = false, root = ROOT }: RunOptions = {},
): Started => {
  const child = spawn(process.execPath, [mainOf(root), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: environmentWith(environment),
    detached: job,
  });
  const { pid } = child;
  if (pid === undefined) throw new Error("godwit has no process id");
  let stdout = "";
  let stderr = "";
  let looks: ReadonlyArray<() => void> = [];
  const look = (): void => {
    for (const one of looks) one();
  };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    look();
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
    look();
  });
  const finished = new Promise<Finished>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code: code ?? -1, stdout, stderr }));
  });
  const printed = (text: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const found = (): void => {
        if ((stdout + stderr).includes(text)) resolve();
      };
      looks = [...looks, found];
      found();
      const early = (): void =>
        reject(new Error(`it ended before it printed ${JSON.stringify(text)}:\n${stdout}${stderr}`));
      finished.then(early, early);
    });
  return {
    pid,
    printed,
    finished,
    stdout: () => stdout,
    kill: (signal) => {
      process.kill(job ? -pid : pid, signal);
    },
  };
};

export const run = (args: ReadonlyArray<string>, options: RunOptions = {}): Promise<Finished> =>
  start(args, options).finished;

/** Runs with `--json` and parses its one document. */
export const runJson = async (args: ReadonlyArray<string>, options: RunOptions = {}) => {
  const ended = await run([...args, "--json"], options);
  try {
    // biome-ignore lint/suspicious/noExplicitAny: tests look at what they expect, and fail at anything else
    return { ...ended, document: JSON.parse(ended.stdout) as any };
  } catch (error) {
    throw new Error(`${String(error)}\nstdout: ${ended.stdout}\nstderr: ${ended.stderr}`);
  }
};

const contentOf = (path: string): string => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // It has ended since it was listed, or is another user's.
    return "";
  }
};

/** Processes that have a text in their command line or their environment. */
export const processesWith = (text: string): ReadonlyArray<number> =>
  readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter(
      (name) => contentOf(`/proc/${name}/cmdline`).includes(text) || contentOf(`/proc/${name}/environ`).includes(text),
    )
    .map(Number);

/** What a demo or `up` of this process id has left behind: processes, guest memory, temporary files. */
export const leftovers = (command: string, pid: number) => {
  const name = `godwit-${command}-${pid}-`;
  return {
    processes: processesWith(name),
    files: ["/dev/shm", tmpdir()].flatMap((directory) =>
      readdirSync(directory)
        .filter((file) => file.startsWith(name))
        .map((file) => join(directory, file)),
    ),
  };
};
export const NOTHING = { processes: [], files: [] };
