/**
 * The process of a simulated device: `node process.ts --spec <json> [--report-fd <n>]`.
 *
 * Once it listens, or has failed to, it says so in one line of JSON on the report descriptor (standard output without one). It ends
 * with its owner or by SIGTERM, and takes its socket with it; what a SIGKILL leaves behind is replaced by the next one of its name.
 *
 * Nothing here imports effect: it would double the time to start.
 */
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { constants } from "node:os";
import { parseArgs } from "node:util";
import { errnoOf, readStat, signalOnParentDeath, tryLockFile } from "@godwit/host";
import { DeviceFailure } from "./failure.ts";
import type { ProcessSpec, StartReport } from "./files.ts";
import { DMA_PERIOD_MS, SimulatedModel } from "./model.ts";
import { serveSimulated } from "./server.ts";

const STDOUT = 1;
/** How soon the end of an owner that is not the parent is seen, ms: the kernel tells of the parent's only. */
const OWNER_PERIOD_MS = 250;

const log = (text: string): void => {
  process.stderr.write(`${new Date().toISOString()} ${text}\n`);
};

const tell = (fd: number, report: StartReport): void => {
  try {
    writeSync(fd, `${JSON.stringify(report)}\n`);
    if (fd !== STDOUT) closeSync(fd);
  } catch (cause) {
    // EPIPE: the starter has ended meanwhile. If it is the owner, a signal is on its way.
    log(`could not report to the starter: ${(cause as Error).message}`);
  }
};

/** Ends this process when its owner ends. */
const followOwner = ({ starterPid, ownerPid }: ProcessSpec): void => {
  if (ownerPid === starterPid) {
    if (!signalOnParentDeath(constants.signals.SIGTERM, starterPid)) process.exit(0);
    return;
  }
  const { startTicks } = readStat(ownerPid);
  const look = (): void => {
    try {
      const now = readStat(ownerPid);
      // Its pid may be another's by now; a zombie has ended.
      if (now.startTicks === startTicks && now.state !== "Z") return;
    } catch (cause) {
      if (errnoOf(cause) !== "ENOENT" && errnoOf(cause) !== "ESRCH") throw cause;
    }
    log(`its owner ${ownerPid} has ended`);
    process.exit(0);
  };
  setInterval(look, OWNER_PERIOD_MS);
};

/** The log's lock is this process's claim to the name: it is held until the process ends, however it ends. */
const claimName = ({ log: path, socket, device }: ProcessSpec): void => {
  if (!tryLockFile(openSync(path, "a", 0o600))) {
    throw new DeviceFailure("EEXIST", `a device ${device.name} lives at ${socket}`);
  }
  // So a socket that is there has no owner.
  rmSync(socket, { force: true });
  process.on("exit", () => rmSync(socket, { force: true }));
};

const start = async (spec: ProcessSpec): Promise<void> => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      log(`${spec.device.name} ends: ${signal}`);
      process.exit(0);
    });
  }
  // The terminal or session of the starter may go; the device stays.
  process.on("SIGHUP", () => log("SIGHUP ignored"));
  followOwner(spec);
  claimName(spec);
  const model = new SimulatedModel(spec.device, () => performance.now());
  if (spec.device.dma !== null) setInterval(() => model.account(), DMA_PERIOD_MS);
  await serveSimulated(spec.socket, model, log);
};

const main = async (): Promise<void> => {
  const { values } = parseArgs({ options: { spec: { type: "string" }, "report-fd": { type: "string" } } });
  const reportFd = Number(values["report-fd"] ?? STDOUT);
  try {
    const spec: ProcessSpec = JSON.parse(values.spec ?? "null");
    await start(spec);
    log(`${spec.device.name} listens at ${spec.socket}`);
    tell(reportFd, { ready: true, pid: process.pid });
  } catch (cause) {
    const errno = cause instanceof DeviceFailure ? cause.errno : errnoOf(cause);
    log(`not started: ${cause instanceof Error ? cause.stack : String(cause)}`);
    tell(reportFd, { ready: false, errno, reason: cause instanceof Error ? cause.message : String(cause) });
    process.exit(1);
  }
};

await main();
