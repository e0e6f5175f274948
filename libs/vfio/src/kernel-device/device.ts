/**
 * A VFIO device of the kernel: a descriptor that answers ioctls, and for each stream another one to read from or write to.
 *
 * Whatever is asked of it is asked in the background and waited for, so that a slow device does not stop its agent: ioctls in a
 * thread of the device's own, reads and writes in Node's. An ioctl that the kernel is in cannot be called off, so neither an
 * interruption nor a time limit ends it: what it brings is still booked, and what is asked later comes after it.
 */
import { errnoOf, HostError, type IoctlThread } from "@godwit/host";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { DeviceError, type DmaLogging, type VfioDevice } from "../device.ts";
import type { DeviceState, MigrationFeatures } from "../state-machine.ts";
import { DEVICE_PATH_FORMS, parseDevicePath } from "./device-path.ts";
import { findDmaLogging, type KernelDmaLogging } from "./dma-logging.ts";
import { type MigrationStream, makeMigrationStream } from "./migration-stream.ts";
import { openDevice } from "./opening.ts";
import { findConfigSpace } from "./regions.ts";
import {
  dataSizeOf,
  deviceStateOf,
  getDataSize,
  getDeviceState,
  getMigrationFeatures,
  migrationFeaturesOf,
  setDeviceState,
  VFIO,
} from "./uapi.ts";

/**
 * How long a device may take to answer, ms. Drivers of real devices wait for their firmware, for tens of seconds at the worst; whoever
 * has a deadline for a switchover keeps it by himself.
 */
const ANSWER_MS_MAX = 60_000;

export interface KernelDevice extends VfioDevice {
  readonly provider: "kernel";
  /** The device itself, for what is no part of a migration: its regions, its interrupts. Closed with the scope. */
  readonly descriptor: number;
}

const NO_MIGRATION: MigrationFeatures = { stopCopy: false, p2p: false, preCopy: false };

/**
 * Opens the device that `device` names (see `DeviceSpec`). It is left in the state it is found in: a driver may keep a state from
 * an earlier opening, so a caller who wants RUNNING looks at `state` and resets.
 */
export const openKernelDevice = (spec: {
  readonly name: string;
  readonly device: string;
}): Effect.Effect<KernelDevice, DeviceError, Scope.Scope> =>
  Effect.gen(function* () {
    const path = parseDevicePath(spec.device);
    if (path === null) {
      const reason = `${JSON.stringify(spec.device)} names no VFIO device; expected ${DEVICE_PATH_FORMS}`;
      return yield* Effect.fail(new DeviceError({ device: spec.name, operation: "open", errno: "EINVAL", reason }));
    }
    const { fd, thread } = yield* Effect.mapError(openDevice(path), deviceErrorOf(spec.name, "open"));
    const asked = <A>(operation: string, ask: () => Promise<A>): Effect.Effect<A, DeviceError> =>
      answered(spec.name, operation, ask);

    const config = yield* asked("open", () => explainNoDevice(spec.device, findConfigSpace(fd, thread)));
    const features = yield* asked("migration features", () => readFeatures(fd, thread));
    const opened = path._tag === "Borrowed" ? "elsewhere" : "here";
    const logging = yield* asked("DMA logging", () => findDmaLogging(fd, thread, opened));
    const stream = yield* Effect.acquireRelease(
      Effect.sync(() => makeMigrationStream(thread)),
      ({ close }) => Effect.promise(close),
    );
    const states = stateChanges(spec.name, fd, thread, stream);
    return {
      name: spec.name,
      provider: "kernel",
      descriptor: fd,
      features,
      state: asked("state", states.get),
      setState: (to) => asked(`set ${to}`, () => states.set(to)),
      reset: asked("reset", states.reset),
      read: (into) => asked("read", () => stream.read(into)),
      write: (bytes) => asked("write", () => stream.write(bytes)),
      precopyInfo: asked("precopy info", stream.precopyInfo),
      stopCopyBytes: asked("data size", () => readDataSize(fd, thread)),
      readConfig: asked("read config", config.read),
      writeConfig: (bytes) => asked("write config", () => config.write(bytes)),
      dmaLogging: logging === null ? null : loggingOf(logging, asked),
    } satisfies KernelDevice;
  });

const deviceErrorOf =
  (device: string, operation: string) =>
  (cause: unknown): DeviceError => {
    if (cause instanceof DeviceError) return cause;
    if (!(cause instanceof HostError)) throw cause;
    const where = cause.path === undefined ? "" : ` ${cause.path}`;
    return new DeviceError({
      device,
      operation,
      errno: errnoOf(cause),
      reason: cause.operation === operation ? cause.reason : `${cause.operation}${where}: ${cause.reason}`,
    });
  };

/** Waits for one answer, not longer than ANSWER_MS_MAX. An interruption waits as well: nothing is asked while something is being asked. */
const answered = <A>(device: string, operation: string, ask: () => Promise<A>): Effect.Effect<A, DeviceError> => {
  const late = () => {
    const reason = `no answer for ${ANSWER_MS_MAX} ms; the kernel is still at it`;
    return Effect.fail(new DeviceError({ device, operation, errno: "ETIMEDOUT", reason }));
  };
  return Effect.tryPromise({ try: ask, catch: deviceErrorOf(device, operation) }).pipe(
    Effect.interruptible,
    Effect.timeoutOrElse({ duration: ANSWER_MS_MAX, orElse: late }),
    Effect.uninterruptible,
  );
};

const explainNoDevice = async <A>(device: string, found: Promise<A>): Promise<A> => {
  try {
    return await found;
  } catch (error) {
    if (!(error instanceof HostError) || error.errno !== "ENOTTY") throw error;
    throw new HostError("open", "ENOTTY", { path: device, detail: "this descriptor is no VFIO device" });
  }
};

const featureOf = async (fd: number, thread: IoctlThread, argument: Uint8Array): Promise<Uint8Array> =>
  (await thread.call({ fd, name: "VFIO_DEVICE_FEATURE", request: VFIO.DEVICE_FEATURE, argument })).argument;

/** The kernel's word for a feature that it, or the driver, does not have. */
const orIfAbsent = async <A, B>(answer: Promise<A>, absent: B): Promise<A | B> => {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof HostError && error.errno === "ENOTTY") return absent;
    throw error;
  }
};

const readFeatures = async (fd: number, thread: IoctlThread): Promise<MigrationFeatures> => {
  const answer = await orIfAbsent(featureOf(fd, thread, getMigrationFeatures()), null);
  return answer === null ? NO_MIGRATION : migrationFeaturesOf(answer);
};

const readDataSize = async (fd: number, thread: IoctlThread): Promise<number | null> => {
  const answer = await orIfAbsent(featureOf(fd, thread, getDataSize()), null);
  return answer === null ? null : dataSizeOf(answer);
};

const stateChanges = (device: string, fd: number, thread: IoctlThread, stream: MigrationStream) => {
  const get = async (): Promise<DeviceState> => {
    const { state, number } = deviceStateOf(await featureOf(fd, thread, getDeviceState()));
    if (state !== null) return state;
    throw new HostError("state", "EPROTO", {
      detail: `the device is in state ${number}, which the uAPI does not know`,
    });
  };
  const set = async (to: DeviceState): Promise<void> => {
    const from = await get();
    try {
      // The kernel would say EINVAL, and write a stack trace into its log for it.
      if (from === "ERROR")
        throw new HostError("set", "EINVAL", { detail: "a device in ERROR is left by a reset only" });
      const { dataFd } = deviceStateOf(await featureOf(fd, thread, setDeviceState(to)));
      await stream.moved(to, dataFd);
    } catch (error) {
      // On its way over several arcs it may have stopped anywhere; its stream lives on if that is where streams live, and is left
      // alone if the device does not even tell where it is.
      const now = await get().catch(() => null);
      if (now !== null) await stream.moved(now, null);
      throw deviceErrorOf(device, `set ${from} -> ${to}`)(error);
    }
  };
  const reset = async (): Promise<void> => {
    await thread.call({ fd, name: "VFIO_DEVICE_RESET", request: VFIO.DEVICE_RESET, argument: 0n });
    await stream.close();
    const state = await get();
    if (state === "RUNNING") return;
    throw new HostError("reset", "EIO", { detail: `the reset succeeded, and left the device in ${state}` });
  };
  return { get, set, reset };
};

const loggingOf = (
  { start, report, stop }: KernelDmaLogging,
  asked: <A>(operation: string, ask: () => Promise<A>) => Effect.Effect<A, DeviceError>,
): DmaLogging => ({
  start: (pageBytes, ranges) => asked("start DMA logging", () => start(pageBytes, ranges)),
  report: (range, pageBytes) => asked("report DMA logging", () => report(range, pageBytes)),
  stop: asked("stop DMA logging", stop),
});
