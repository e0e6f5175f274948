/** The starter's side of a launcher (`launcher.ts`): one connection for each process. */
import { connect } from "node:net";
import { createInterface } from "node:readline";
import type { DetachedProcess, DetachedProgram } from "./detached-process.ts";

/** What the launcher says on a connection, a line of JSON each, in this order; `failed` ends it. */
export type LauncherWord =
  | { readonly pid: number }
  | { readonly report: string }
  | { readonly exited: true }
  | { readonly failed: string };

/** Rejects when no launcher listens there, or it does not start the program. Closing the connection before the report ends the process again. */
export const startThroughLauncher = (socketPath: string, program: DetachedProgram): Promise<DetachedProcess> =>
  new Promise((resolve, reject) => {
    const report = Promise.withResolvers<string>();
    const exited = Promise.withResolvers<void>();
    report.promise.catch(() => {});
    const fail = (reason: string): void => {
      const error = new Error(`the launcher at ${socketPath}: ${reason}`);
      reject(error);
      report.reject(error);
      exited.resolve();
    };
    const socket = connect(socketPath);
    const heard = (word: LauncherWord): void => {
      if ("pid" in word) {
        const { pid } = word;
        resolve({ pid, report: report.promise, kill: (signal) => kill(pid, signal), exited: exited.promise });
      } else if ("report" in word) {
        report.resolve(word.report);
        socket.unref();
      } else if ("exited" in word) {
        report.reject(new Error("the process ended before it was ready"));
        exited.resolve();
      } else fail(word.failed);
    };
    socket.on("connect", () => socket.write(`${JSON.stringify(program)}\n`));
    socket.on("error", (cause) => fail(cause.message));
    const lines = createInterface({ input: socket });
    lines.on("line", (line) => {
      try {
        heard(JSON.parse(line));
      } catch {
        fail(`it said ${JSON.stringify(line.slice(0, 80))}`);
      }
    });
    // The socket's own, said again.
    lines.on("error", () => {});
    // All processes of a launcher end with it.
    socket.on("close", () => fail("it broke off"));
  });

/** The launcher's processes are seen from here: the actors of a host share their process ids. */
const kill = (pid: number, signal: NodeJS.Signals): void => {
  try {
    process.kill(pid, signal);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ESRCH") throw cause;
  }
};
