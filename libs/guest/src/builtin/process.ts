/**
 * The process of a builtin guest: `node process.ts --spec <json> [--report-fd <n>]`.
 *
 * It outlives whoever started it. Once it is ready, or has failed to become so, it says so in one line of JSON on the
 * report descriptor (standard output without one). It ends by `quit` on its monitor or by SIGTERM, and then takes its RAM
 * file and socket with it; what a SIGKILL leaves behind is replaced by the next guest of that name.
 *
 * Nothing here imports effect: it would double the time to start.
 */
import { closeSync, rmSync, writeSync } from "node:fs";
import { parseArgs } from "node:util";
import { startMachine } from "./machine.ts";
import { type MonitorHandler, serveMonitor } from "./monitor.ts";
import { createRam } from "./ram.ts";
import { Refusal, refusalOf } from "./refusal.ts";
import { type ProcessSpec, parseProcessSpec } from "./spec.ts";

/** What the process says to its starter. */
export type StartReport =
  | { readonly ready: true; readonly pid: number }
  | { readonly ready: false; readonly code: Refusal["code"]; readonly reason: string };

const STDOUT = 1;

const log = (text: string): void => {
  process.stderr.write(`${new Date().toISOString()} ${text}\n`);
};

const tell = (fd: number, report: StartReport): void => {
  try {
    writeSync(fd, `${JSON.stringify(report)}\n`);
    if (fd !== STDOUT) closeSync(fd);
  } catch (cause) {
    // EPIPE: the starter has ended meanwhile. The guest does not depend on it.
    log(`could not report to the starter: ${(cause as Error).message}`);
  }
};

const pathArgument = (args: Readonly<Record<string, unknown>>): string => {
  const path = args["path"];
  if (typeof path === "string" && path.startsWith("/") && !path.includes("\0")) return path;
  throw new Refusal("invalid-request", `path is ${JSON.stringify(path)}, not an absolute path`);
};

/** Resolves once the guest is ready; everything it made is removed again when the process ends, however it ends but by SIGKILL. */
const startGuest = async (spec: ProcessSpec): Promise<void> => {
  const quit = (why: string): void => {
    log(`guest ${spec.name} ends: ${why}`);
    process.exit(0);
  };
  process.on("SIGTERM", () => quit("SIGTERM"));
  process.on("SIGINT", () => quit("SIGINT"));
  const ram = createRam(spec.ramPath, spec.memoryBytes);
  process.on("exit", () => {
    rmSync(spec.socket, { force: true });
    rmSync(spec.ramPath, { force: true });
  });
  // The RAM file's lock says that this name is ours: a socket that is there has no owner.
  rmSync(spec.socket, { force: true });
  const tracking = ram.userfaultfd.armed ? "armed" : `not armed (${ram.userfaultfd.reason})`;
  log(`guest ${spec.name}: ${spec.memoryBytes} bytes of RAM in ${spec.ramPath}, userfaultfd ${tracking}`);

  const machine = await startMachine(spec, ram, log);
  const handlers = new Map<string, MonitorHandler>([
    ["describe", machine.describe],
    ["stats", machine.stats],
    ["verify", machine.verified],
    ["await-verified", (_args, signal) => machine.awaitVerified(signal)],
    ["pause", machine.pause],
    ["resume", machine.resume],
    ["check", machine.check],
    ["save", async (args) => ({ lengthBytes: await machine.save(pathArgument(args)) })],
    ["load", (args) => machine.load(pathArgument(args))],
    // Once the answer is with the kernel. The connection's end then says that the files are gone.
    ["quit", () => void setImmediate(() => quit("asked to"))],
  ]);
  await serveMonitor(spec.socket, handlers);
};

const main = async (): Promise<void> => {
  const { values } = parseArgs({ options: { spec: { type: "string" }, "report-fd": { type: "string" } } });
  const reportFd = Number(values["report-fd"] ?? STDOUT);
  // The terminal or session of the starter may go; the guest stays.
  process.on("SIGHUP", () => log("SIGHUP ignored"));
  try {
    const spec = parseProcessSpec(values.spec ?? "null");
    await startGuest(spec);
    log(`guest ${spec.name} is ready`);
    tell(reportFd, { ready: true, pid: process.pid });
  } catch (cause) {
    const { code, message } = refusalOf(cause);
    log(`not started: ${cause instanceof Error ? cause.stack : message}`);
    tell(reportFd, { ready: false, code, reason: message });
    process.exit(1);
  }
};

await main();
