/** Programs of ours that outlive whoever starts them: guests, and devices as hardware has them. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import type { Readable } from "node:stream";
import { pathToFileURL } from "node:url";
import { startThroughLauncher } from "./launcher-client.ts";
import { programFile } from "./program.ts";

/** `node ENTRY --spec SPEC --report-fd N`: the program says one line on that descriptor once it is ready, or cannot be. */
export interface DetachedProgram {
  /** Path of the program, absolute. */
  readonly entry: string;
  readonly spec: string;
  /** Where its output is appended, absolute. */
  readonly log: string;
}

export interface DetachedProcess {
  readonly pid: number;
  /** What it has reported; rejects when it ends before. From then on nothing here keeps this process alive. */
  readonly report: Promise<string>;
  readonly kill: (signal: "SIGTERM" | "SIGKILL") => void;
  readonly exited: Promise<void>;
}

/**
 * Starts it, in a session of its own, or lets the launcher do so whose socket is named by GODWIT_LAUNCHER: where a container engine ends
 * all processes of a container together, whatever one has started would end with it. Rejects when it cannot be started.
 */
export const startDetached = (program: DetachedProgram): Promise<DetachedProcess> => {
  const launcher = process.env["GODWIT_LAUNCHER"] ?? "";
  return launcher === "" ? startHere(program) : startThroughLauncher(launcher, program);
};

const REPORT_FD = 3;

/** Starts it as a child of this process. */
export const startHere = async ({ entry, spec, log }: DetachedProgram): Promise<DetachedProcess> => {
  const child = spawnDetached(entry, spec, log);
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const report = reportOf(child);
  // Whoever starts it may care for its pid alone.
  report.catch(() => {});
  if (child.pid === undefined) {
    await report;
    throw new Error("it has no process id");
  }
  return {
    pid: child.pid,
    report,
    kill: (signal) => {
      child.kill(signal);
    },
    exited,
  };
};

const spawnDetached = (entry: string, spec: string, log: string): ChildProcess => {
  const logFd = openSync(log, "a", 0o600);
  try {
    const { GODWIT_PROGRAMS, NODE_COMPILE_CACHE } = process.env;
    return spawn(
      process.execPath,
      [programFile(pathToFileURL(entry)), "--spec", spec, "--report-fd", String(REPORT_FD)],
      {
        detached: true,
        stdio: ["ignore", logFd, logFd, "pipe"],
        cwd: "/",
        // Nothing else of the starter's environment, such as NODE_OPTIONS, is meant for the program.
        env: { GODWIT_PROGRAMS, NODE_COMPILE_CACHE },
      },
    );
  } finally {
    closeSync(logFd);
  }
};

const reportOf = (child: ChildProcess): Promise<string> =>
  new Promise((resolve, reject) => {
    const pipe = child.stdio[REPORT_FD] as Readable;
    let text = "";
    const release = (): void => {
      pipe.destroy();
      child.unref();
    };
    pipe.setEncoding("utf8");
    pipe.on("data", (chunk: string) => {
      text += chunk;
    });
    pipe.on("end", () => {
      release();
      if (text === "") reject(new Error("the process ended before it was ready"));
      else resolve(text);
    });
    child.on("error", (cause) => {
      release();
      reject(cause);
    });
  });
