/**
 * The process of a builtin guest: `node process.ts --spec <json> [--report-fd <n>]`.
 *
 * It outlives whoever started it. Once it is ready, or has failed to become so, it says so in one line of JSON on the
 * report descriptor (standard output without one). It ends when the guest shuts down, by `quit` on its monitor or by SIGTERM,
 * and then takes its RAM file and socket with it; what a SIGKILL leaves behind is replaced by the next guest of that name.
 *
 * Nothing here imports effect: it would double the time to start.
 */
import { closeSync, rmSync, writeSync } from "node:fs";
import { parseArgs } from "node:util";
import type { GuestEnding } from "../guest.ts";
import { startMachine } from "./machine.ts";
import { type MonitorHandler, serveMonitor, whileWanted } from "./monitor.ts";
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

const textArgument = (args: Readonly<Record<string, unknown>>, name: string): string => {
  const text = args[name];
  if (typeof text === "string" && text !== "") return text;
  throw new Refusal("invalid-request", `${name} is ${JSON.stringify(text)}, not a text`);
};

/** Resolves once the guest is ready; everything it made is removed again when the process ends, however it ends but by SIGKILL. */
const startGuest = async (spec: ProcessSpec): Promise<void> => {
  const ended = Promise.withResolvers<GuestEnding>();
  const quit = (reason: string): void => {
    log(`guest ${spec.name} ends: ${reason}`);
    ended.resolve({ how: "shutdown", reason });
    // Once the answers are with the kernel. The end of a connection then says that the files are gone.
    setImmediate(() => process.exit(0));
  };
  process.on("SIGTERM", () => quit("its process was told to end, by SIGTERM"));
  process.on("SIGINT", () => quit("its process was told to end, by SIGINT"));
  const ram = createRam(spec.ramPath, spec.memoryBytes);
  process.on("exit", () => {
    rmSync(spec.socket, { force: true });
    rmSync(spec.ramPath, { force: true });
    // An exit waits for all threads, and a vCPU that waits for a page hears nothing but this.
    if (ram.pages.fd() !== null) process.kill(process.pid, "SIGKILL");
  });
  // The RAM file's lock says that this name is ours: a socket that is there has no owner.
  rmSync(spec.socket, { force: true });
  const tracking = ram.userfaultfd.armed ? "armed" : `not armed (${ram.userfaultfd.reason})`;
  log(`guest ${spec.name}: ${spec.memoryBytes} bytes of RAM in ${spec.ramPath}, userfaultfd ${tracking}`);

  const machine = await startMachine(spec, ram, log, ended.resolve);
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
    ["postcopy-listen", machine.listen],
    ["postcopy-end", machine.endListening],
    ["postcopy-give-up", (args) => machine.giveUp(textArgument(args, "reason"))],
    ["await-ending", (_args, signal) => whileWanted(ended.promise, signal)],
    ["reset", machine.reset],
    ["shutdown", () => machine.shutDown().then(() => quit("the guest shut itself down"))],
    ["quit", () => quit("its process was told to quit")],
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
