/** Starts guest processes, and lets go of them once they are ready: a guest lives on without its starter. */

import { existsSync, lstatSync, mkdirSync } from "node:fs";
import { isAbsolute } from "node:path";
import { fileURLToPath } from "node:url";
import { hostPageBytesOf, startDetached } from "@godwit/host";
import type { RamBlock } from "@godwit/memory";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import * as Schema from "effect/Schema";
import type { GuestSpec } from "../guest.ts";
import { type BuiltinDevice, startDevices } from "./devices.ts";
import { defaultDirectory, filesOf, hugeDirectoryOf } from "./files.ts";
import { PAGE_BYTES, type PageMix } from "./kernel/page.ts";
import { guestError, isDeserted } from "./monitor-client.ts";
import { refusalOf } from "./refusal.ts";
import { type ProcessSpec, parseProcessSpec } from "./spec.ts";

export type BuiltinSpec = Extract<GuestSpec, { readonly driver: "builtin" }>;

/** A guest to start. What is left out has the default named. */
export interface BuiltinOptions {
  /** 1 to 63 letters, digits, dots, dashes or underscores. */
  readonly name: string;
  /** A multiple of 4096, at most 1 TiB. */
  readonly memoryBytes: number;
  /** Threads, 1 to 64; 2. */
  readonly vcpus?: number;
  /** What all vCPUs together write, bytes/s; 0 idles; 8 MiB/s. */
  readonly dirtyRateBytesPerSecond?: number;
  /** The memory that is written over and over, bytes; a quarter of it. */
  readonly workingSetBytes?: number;
  /** Percent; 40 zero, 30 compressible, 30 random. */
  readonly mix?: PageMix;
  /** Unsigned 32-bit number; 1. */
  readonly seed?: number;
  /** Where RAM file, socket and log lie, absolute; made if missing; /dev/shm/godwit-UID. Should be memory: a tmpfs. */
  readonly directory?: string;
  /** Unit in which its memory is mapped, bytes: 4096, or that of the hugetlbfs at `<directory>/huge`; 4096. */
  readonly hostPageBytes?: number;
  /** The last part of memory, which vCPUs leave to its devices, bytes, a multiple of 4096; 0. */
  readonly dmaWindowBytes?: number;
  /** Its VFIO devices; none. */
  readonly devices?: ReadonlyArray<BuiltinDevice>;
}

const DEFAULT_VCPUS = 2;
const DEFAULT_DIRTY_RATE = 8 * 2 ** 20;
const DEFAULT_MIX: PageMix = { zero: 40, compressible: 30, random: 30 };
const STEP = "start the guest";

/** What runs as a guest's process. */
export const GUEST_PROGRAM = fileURLToPath(new URL("./process.ts", import.meta.url));

/** A start's deadline: what node and its threads need on a host that is busy, ms, */
const START_TIMEOUT_MS = 30_000;
/** and the slowest filling of memory that is still one, bytes/ms; 560,000 were measured on a busy host with 2 vCPUs. */
const FILL_BYTES_PER_MS_MIN = 100_000;

/**
 * Starts a guest; it runs when this succeeds. Fails with `invalid-parameter` (the value is named), `guest-exists`, `no-space`,
 * or `guest-failed`. Interruption ends the process again.
 */
export const startBuiltin: (options: BuiltinOptions) => Effect.Effect<BuiltinSpec, GodwitError> = Effect.fnUntraced(
  function* (options) {
    const directory = yield* prepareDirectory(options.directory);
    const { name, memoryBytes, dmaWindowBytes = 0, hostPageBytes = PAGE_BYTES } = options;
    yield* requireHostPages(directory, memoryBytes, hostPageBytes);
    const pages = Math.max(1, Math.floor((memoryBytes - dmaWindowBytes) / PAGE_BYTES));
    const started = yield* launch(directory, {
      ...frameOf(directory, name, memoryBytes, hostPageBytes),
      role: "boot",
      workload: {
        seed: options.seed ?? 1,
        vcpus: options.vcpus ?? Math.min(DEFAULT_VCPUS, pages),
        dirtyRateBytesPerSecond: options.dirtyRateBytesPerSecond ?? DEFAULT_DIRTY_RATE,
        workingSetBytes: options.workingSetBytes ?? Math.ceil(pages / 4) * PAGE_BYTES,
        mix: options.mix ?? DEFAULT_MIX,
        ...(dmaWindowBytes === 0 ? {} : { dmaWindowBytes }),
      },
    });
    return yield* withDevices(started, directory, options.devices ?? []);
  },
);

/**
 * Starts a destination for a guest with these RAMBlocks: memory of zeros, and vCPUs that wait for device state. Its own
 * blocks (`describe`) have other paths. Fails as `startBuiltin` does, and with `incompatible` for blocks that no builtin guest has.
 */
export const startBuiltinIncoming: (
  name: string,
  blocks: ReadonlyArray<RamBlock>,
  directory?: string,
  /** Told of the process before it is ready: whoever starts it may not live to see that. */
  spawned?: (spec: BuiltinSpec) => void,
  devices?: ReadonlyArray<BuiltinDevice>,
) => Effect.Effect<BuiltinSpec, GodwitError> = Effect.fnUntraced(function* (
  name,
  blocks,
  directory,
  spawned,
  devices = [],
) {
  const [block, ...others] = blocks;
  if (block === undefined || others.length > 0 || block.name !== "ram0") {
    const shown = blocks.map(({ name: block, hostPageBytes }) => `${block} (pages of ${hostPageBytes})`).join(", ");
    const reason = `a builtin guest has one RAMBlock, ram0; offered: ${shown || "none"}`;
    return yield* guestError("incompatible", STEP, reason);
  }
  const prepared = yield* prepareDirectory(directory);
  yield* requireHostPages(prepared, block.lengthBytes, block.hostPageBytes);
  const pages = Math.max(1, Math.floor(block.lengthBytes / PAGE_BYTES));
  const spec: ProcessSpec = {
    ...frameOf(prepared, name, block.lengthBytes, block.hostPageBytes),
    role: "incoming",
    vcpus: Math.min(DEFAULT_VCPUS, pages),
  };
  return yield* withDevices(yield* launch(prepared, spec, spawned), prepared, devices);
});

/** A guest without its devices is of no use: it ends when one of them does not start. */
const withDevices = (
  guest: BuiltinSpec,
  directory: string,
  devices: ReadonlyArray<BuiltinDevice>,
): Effect.Effect<BuiltinSpec, GodwitError> =>
  devices.length === 0
    ? Effect.succeed(guest)
    : startDevices(
        { name: guest.name, pid: guest.pid, directory, ram: filesOf(directory, guest.name).ram },
        devices,
      ).pipe(
        Effect.map((specs): BuiltinSpec => ({ ...guest, devices: specs })),
        Effect.onError(() => Effect.sync(() => process.kill(guest.pid, "SIGTERM"))),
      );

/** Memory in large host pages needs a hugetlbfs that has them. */
const requireHostPages = (directory: string, memoryBytes: number, hostPageBytes: number) =>
  Effect.suspend(() => {
    if (hostPageBytes === PAGE_BYTES) return Effect.void;
    const huge = hugeDirectoryOf(directory);
    if (memoryBytes % hostPageBytes !== 0)
      return Effect.fail(
        guestError(
          "invalid-parameter",
          STEP,
          `memory of ${memoryBytes} bytes is no whole number of pages of ${hostPageBytes}`,
        ),
      );
    const found = existsSync(huge) ? hostPageBytesOf(huge) : PAGE_BYTES;
    if (found === hostPageBytes) return Effect.void;
    const reason = `${huge} is no hugetlbfs with pages of ${hostPageBytes} bytes: mount -t hugetlbfs -o pagesize=${hostPageBytes} none ${huge}`;
    return Effect.fail(guestError("not-supported", STEP, reason));
  });

const frameOf = (directory: string, name: string, memoryBytes: number, hostPageBytes: number) => {
  const files = filesOf(directory, name, hostPageBytes !== PAGE_BYTES);
  return { name, socket: files.socket, ramPath: files.ram, memoryBytes };
};

const prepareDirectory = (wanted: string | undefined): Effect.Effect<string, GodwitError> =>
  Effect.try({
    try: () => {
      const directory = wanted ?? defaultDirectory();
      if (!isAbsolute(directory)) throw guestError("invalid-parameter", STEP, `directory ${directory} is not absolute`);
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      // In /dev/shm anybody could have made it first, to read guest memory.
      if (wanted === undefined && lstatSync(directory).uid !== process.getuid!()) {
        throw guestError("not-supported", STEP, `${directory} belongs to another user; name another directory`);
      }
      return directory;
    },
    catch: (cause) =>
      cause instanceof GodwitError ? cause : guestError("guest-failed", STEP, refusalOf(cause).message),
  });

const StartReport = Schema.fromJsonString(
  Schema.Union([
    Schema.Struct({ ready: Schema.Literal(true), pid: Schema.Int }),
    Schema.Struct({ ready: Schema.Literal(false), code: GodwitError.fields.code, reason: Schema.String }),
  ]),
);

/** One start takes about 250 ms; a killed guest of hundreds of GiB needs seconds to give its memory, and then its lock, back. */
const LAST_BREATH = { schedule: Schedule.spaced("200 millis"), times: 20 };

/** Starts the process, once more when the name is held by one that nobody can reach: a guest that was killed a moment ago. */
const launch = (
  directory: string,
  spec: ProcessSpec,
  spawned: (spec: BuiltinSpec) => void = () => {},
): Effect.Effect<BuiltinSpec, GodwitError> =>
  launchOnce(directory, spec, spawned).pipe(
    Effect.retry({
      ...LAST_BREATH,
      while: (error) => (error.code === "guest-exists" ? isDeserted(spec.socket) : Effect.succeed(false)),
    }),
  );

const launchOnce = Effect.fnUntraced(function* (
  directory: string,
  spec: ProcessSpec,
  spawned: (spec: BuiltinSpec) => void,
) {
  const json = JSON.stringify(spec);
  // The same check that the process makes, before there is a process or a file of that name.
  yield* Effect.try({
    try: () => parseProcessSpec(json),
    catch: (cause) => guestError(refusalOf(cause).code, STEP, refusalOf(cause).message),
  });
  const { log } = filesOf(directory, spec.name);
  const child = yield* Effect.tryPromise({
    try: async () => {
      const started = await startDetached({ entry: GUEST_PROGRAM, spec: json, log });
      try {
        spawned({ driver: "builtin", name: spec.name, socket: spec.socket, pid: started.pid });
        return started;
      } catch (cause) {
        // Who cannot note it would never find it again.
        started.kill("SIGKILL");
        throw cause;
      }
    },
    catch: (cause) => guestError("guest-failed", STEP, refusalOf(cause).message),
  }).pipe(Effect.uninterruptible);
  const timeoutMs = START_TIMEOUT_MS + spec.memoryBytes / FILL_BYTES_PER_MS_MIN;
  const failed = (reason: string): GodwitError => guestError("guest-failed", STEP, `${reason}; its log is ${log}`);
  const text = yield* Effect.tryPromise({ try: () => child.report, catch: (cause) => (cause as Error).message }).pipe(
    Effect.timeout(timeoutMs),
    Effect.onError(() => Effect.sync(() => child.kill("SIGTERM"))),
    Effect.mapError((error) => failed(typeof error === "string" ? error : `not ready after ${timeoutMs} ms`)),
  );
  const report = yield* Schema.decodeUnknownEffect(StartReport)(text).pipe(
    Effect.mapError((cause) => failed(`it reported wrongly: ${cause.message}`)),
  );
  if (!report.ready) return yield* guestError(report.code, STEP, report.reason);
  const started: BuiltinSpec = { driver: "builtin", name: spec.name, socket: spec.socket, pid: report.pid };
  return started;
});
