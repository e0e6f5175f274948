/** Starts simulated devices in processes of their own, as hardware that outlives the agents that talk to it. */
import { mkdirSync } from "node:fs";
import { isAbsolute } from "node:path";
import { fileURLToPath } from "node:url";
import { type DetachedProcess, errnoOf, startDetached } from "@godwit/host";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { DeviceError } from "../device.ts";
import type { DeviceSpec } from "../device-spec.ts";
import { filesOf, SOCKET_PATH_BYTES_MAX } from "./files.ts";
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

/** What runs as a device's process. */
export const DEVICE_PROGRAM = fileURLToPath(new URL("./process.ts", import.meta.url));

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
  const child = yield* Effect.tryPromise({
    try: async () => {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      return startDetached({ entry: DEVICE_PROGRAM, spec: JSON.stringify(spec), log: spec.log });
    },
    catch: (cause) => failed(errnoOf(cause), (cause as Error).message),
  }).pipe(Effect.uninterruptible);
  const text = yield* Effect.tryPromise({ try: () => child.report, catch: (cause) => (cause as Error).message }).pipe(
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

const stop = (child: DetachedProcess): Effect.Effect<void> =>
  Effect.suspend(() => {
    child.kill("SIGTERM");
    const exited = Effect.promise(() => child.exited);
    return exited.pipe(
      Effect.timeoutOrElse({
        duration: STOP_TIMEOUT_MS,
        orElse: () =>
          Effect.andThen(
            Effect.sync(() => child.kill("SIGKILL")),
            exited,
          ),
      }),
    );
  });
