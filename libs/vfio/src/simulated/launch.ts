/** Starts simulated devices in processes of their own, as hardware that outlives the agents that talk to it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { isAbsolute } from "node:path";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { errnoOf } from "@godwit/host";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { DeviceError } from "../device.ts";
import type { DeviceSpec } from "../device-spec.ts";
import { filesOf, type ProcessSpec, SOCKET_PATH_BYTES_MAX } from "./files.ts";
import { parseSimulatedSpec, type SimulatedOptions } from "./spec.ts";

/** A device that listens. */
export interface StartedDevice {
  readonly spec: Extract<DeviceSpec, { readonly provider: "simulated" }>;
  /** SIGTERM ends it. */
  readonly pid: number;
  /** Ends it; its socket is gone then. Harmless when it has ended. */
  readonly stop: Effect.Effect<void>;
}

export interface StartOptions {
  /** The process with which the device ends, such as its guest's; this one if left out. */
  readonly ownerPid?: number;
}

/** What node needs to start on a host that is busy, ms. */
const START_TIMEOUT_MS = 30_000;
/** What SIGTERM may take before the process is killed, ms. */
const STOP_TIMEOUT_MS = 5_000;

/**
 * Starts a device, which listens when this succeeds. Its socket and log lie in `directory`, absolute, made if missing; two devices of one
 * name there are refused with EEXIST. Fails with EINVAL for a spec that is wrong. Interruption ends the process again.
 */
export const startSimulated: (
  options: SimulatedOptions,
  directory: string,
  start?: StartOptions,
) => Effect.Effect<StartedDevice, DeviceError> = Effect.fnUntraced(function* (options, directory, start = {}) {
  const failed = (errno: string, reason: string): DeviceError =>
    new DeviceError({ device: options.name, operation: "start", errno, reason });
  const device = yield* parseSimulatedSpec(options).pipe(Effect.mapError(({ message }) => failed("EINVAL", message)));
  const files = filesOf(directory, device.name);
  if (!isAbsolute(directory)) return yield* failed("EINVAL", `directory ${directory} is not absolute`);
  if (Buffer.byteLength(files.socket) > SOCKET_PATH_BYTES_MAX) {
    return yield* failed("ENAMETOOLONG", `socket path ${files.socket} has more than ${SOCKET_PATH_BYTES_MAX} bytes`);
  }
  const spec = { ...files, device, starterPid: process.pid, ownerPid: start.ownerPid ?? process.pid };
  const child = yield* Effect.try({
    try: () => {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      return spawnDetached(spec);
    },
    catch: (cause) => failed(errnoOf(cause), (cause as Error).message),
  });
  const text = yield* reportOf(child).pipe(
    Effect.timeout(START_TIMEOUT_MS),
    Effect.onError(() => Effect.sync(() => child.kill("SIGTERM"))),
    Effect.mapError((error) => (typeof error === "string" ? error : `not ready after ${START_TIMEOUT_MS} ms`)),
    Effect.mapError((reason) => failed("EPIPE", `${reason}; its log is ${files.log}`)),
  );
  const report = yield* decodeReport(text).pipe(Effect.mapError(({ message }) => failed("EPROTO", message)));
  if (!report.ready) return yield* failed(report.errno, report.reason);
  const { socket } = files;
  const started: StartedDevice = {
    spec: { name: device.name, provider: "simulated", socket },
    pid: report.pid,
    stop: stop(child),
  };
  return started;
});

const decodeReport = Schema.decodeUnknownEffect(
  Schema.fromJsonString(
    Schema.Union([
      Schema.Struct({ ready: Schema.Literal(true), pid: Schema.Int }),
      Schema.Struct({ ready: Schema.Literal(false), errno: Schema.String, reason: Schema.String }),
    ]),
  ),
);

const REPORT_FD = 3;

const spawnDetached = (spec: ProcessSpec): ChildProcess => {
  const entry = fileURLToPath(new URL("./process.ts", import.meta.url));
  const logFd = openSync(spec.log, "a", 0o600);
  try {
    return spawn(process.execPath, [entry, "--spec", JSON.stringify(spec), "--report-fd", String(REPORT_FD)], {
      detached: true,
      stdio: ["ignore", logFd, logFd, "pipe"],
      cwd: "/",
      // Nothing of the starter's environment, such as NODE_OPTIONS, is meant for the device.
      env: {},
    });
  } finally {
    closeSync(logFd);
  }
};

/** The one line that the process reports. */
const reportOf = (child: ChildProcess): Effect.Effect<string, string> =>
  Effect.callback((resume) => {
    const pipe = child.stdio[REPORT_FD] as Readable;
    let text = "";
    const release = (): void => {
      pipe.destroy();
      child.unref();
    };
    const settle = (outcome: Effect.Effect<string, string>): void => {
      release();
      resume(outcome);
    };
    pipe.setEncoding("utf8");
    pipe.on("data", (chunk: string) => {
      text += chunk;
    });
    pipe.on("end", () => settle(text === "" ? Effect.fail("it ended before it was ready") : Effect.succeed(text)));
    child.on("error", (cause) => settle(Effect.fail(cause.message)));
    return Effect.sync(release);
  });

const stop = (child: ChildProcess): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (child.exitCode !== null || child.signalCode !== null) return Effect.void;
    child.ref();
    const exited = Effect.promise(() => once(child, "exit"));
    child.kill("SIGTERM");
    return exited.pipe(
      Effect.timeoutOrElse({
        duration: STOP_TIMEOUT_MS,
        orElse: () =>
          Effect.andThen(
            Effect.sync(() => child.kill("SIGKILL")),
            exited,
          ),
      }),
      Effect.asVoid,
    );
  });
