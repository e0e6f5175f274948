/** What a simulated device is: sizes, speeds, and what goes wrong with it. Plain data; what is left out has the default named. */
import { DeviceName } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { arcName, arcsOf, DEVICE_STATES } from "../state-machine.ts";

/** The largest device state, bytes: no device has more today, and its table of generations then takes 4 MiB. */
export const STATE_BYTES_MAX = 64 * 2 ** 30;
/** The highest rates, bytes/s: no bus is faster. */
const RATE_MAX = 2 ** 40;
/** The longest latency, ms: what waits longer has given up. */
const LATENCY_MS_MAX = 3_600_000;
/** Faults of one device; a test needs a handful. */
const FAULTS_MAX = 64;

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }));
const intOr = (fallback: number, minimum: number, maximum: number) =>
  int(minimum, maximum).pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(fallback)));
const flagOr = (fallback: boolean) => Schema.Boolean.pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(fallback)));

const STATE = DEVICE_STATES.join("|");
/** `STOP->STOP_COPY`: an arc that the device itself walks, see `arcsOf`. */
const ArcName = Schema.String.check(Schema.isPattern(new RegExp(`^(${STATE})->(${STATE})$`)));

/**
 * Something that goes wrong, the `nth` time (from 1) that the device comes to `at`, and `times` times in a row.
 *
 * `kind`: the name of an errno, with which it fails and changes nothing; `error-state`, it fails with EIO and is in ERROR; `hang`,
 * it never answers, while what is asked later is answered.
 */
export const DeviceFault = Schema.Struct({
  at: Schema.Union([ArcName, Schema.Literals(["read", "write", "precopy-info", "reset"])]),
  nth: intOr(1, 1, 2 ** 31),
  kind: Schema.Union([Schema.Literals(["error-state", "hang"]), Schema.String.check(Schema.isPattern(/^E[A-Z0-9]+$/))]),
  times: intOr(1, 1, 2 ** 31),
});
export type DeviceFault = typeof DeviceFault.Type;

/** A window of guest memory into which the device writes by itself, as hardware does: nobody's dirty tracking sees it. */
export const DmaSpec = Schema.Struct({
  /** The file of the guest's RAM, absolute. It may come later than the device. */
  path: Schema.String.check(Schema.isPattern(/^\//)),
  /** Where in the file the window begins, bytes, a multiple of 4096. */
  offsetBytes: int(0, 2 ** 46),
  /** Bytes, a multiple of 4096. */
  lengthBytes: int(4096, 2 ** 36),
  bytesPerSecond: int(0, RATE_MAX),
  /** Whether it logs what it writes (VFIO_DEVICE_FEATURE_DMA_LOGGING_*); yes. */
  logged: flagOr(true),
  /** Where the window begins for the device, bytes; `offsetBytes` if left out, as if all RAM were one block from 0. */
  iova: Schema.optionalKey(int(0, 2 ** 46)),
}).check(
  Schema.makeFilter(({ offsetBytes, lengthBytes, iova = 0 }) =>
    [offsetBytes, lengthBytes, iova].every((bytes) => bytes % 4096 === 0) ? undefined : "not a multiple of 4096",
  ),
);
export type DmaSpec = typeof DmaSpec.Type;

export const SimulatedSpec = Schema.Struct({
  name: DeviceName,
  /**
   * `boot`: has content and works from the start; the default. `incoming`: fresh, and works only once a state was loaded into it. Both
   * are RUNNING.
   */
  role: Schema.Literals(["boot", "incoming"]).pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed("boot"))),
  /** Device memory, bytes. */
  stateBytes: int(1, STATE_BYTES_MAX),
  /** The first part of it, bytes, rounded up to whole blocks: once a destination has it, it allocates what it needs. 0. */
  initialBytes: intOr(0, 0, STATE_BYTES_MAX),
  /** VFIO_MIGRATION_PRE_COPY; yes. */
  preCopy: flagOr(true),
  /** What PRE_COPY gives: `all`, the default, or `initial` data only, as the kernel's mtty does; the rest comes in STOP_COPY. */
  preCopyData: Schema.Literals(["all", "initial"]).pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed("all"))),
  /** VFIO_MIGRATION_P2P; yes. */
  p2p: flagOr(true),
  /** Device memory that changes while the device runs, bytes/s; 0. */
  dirtyBytesPerSecond: intOr(0, 0, RATE_MAX),
  /** How fast its stream can be read, bytes/s; 0, without limit. */
  readBytesPerSecond: intOr(0, 0, RATE_MAX),
  /** How long arcs take, ms, by name; those left out take no time. */
  arcLatencyMs: Schema.Record(ArcName, int(0, LATENCY_MS_MAX)).pipe(
    Schema.withDecodingDefaultTypeKey(Effect.succeed({})),
  ),
  /** What the destination's allocation takes, once, when all initial data is written, ms; it answers nothing meanwhile. 0. */
  allocationMs: intOr(0, 0, LATENCY_MS_MAX),
  /** What the content follows from; 1. */
  seed: intOr(1, 0, 2 ** 32 - 1),
  faults: Schema.Array(DeviceFault)
    .check(Schema.isMaxLength(FAULTS_MAX))
    .pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed([]))),
  dma: Schema.NullOr(DmaSpec).pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(null))),
}).check(
  Schema.makeFilter(({ stateBytes, initialBytes }) =>
    initialBytes <= stateBytes ? undefined : `initialBytes ${initialBytes} is more than stateBytes ${stateBytes}`,
  ),
  // A latency or fault on an arc that is never walked would say that nothing goes wrong.
  Schema.makeFilter(({ p2p, preCopy, arcLatencyMs, faults }) => {
    const walked = arcsOf({ stopCopy: true, p2p, preCopy }).map(arcName);
    const named = [...Object.keys(arcLatencyMs), ...faults.map(({ at }) => at)].filter((at) => at.includes("->"));
    const unwalked = named.find((arc) => !walked.includes(arc));
    return unwalked === undefined ? undefined : `the device never walks ${unwalked}; its arcs are ${walked.join(" ")}`;
  }),
);
export type SimulatedSpec = typeof SimulatedSpec.Type;
/** What has to be said of a device: its name and size. */
export type SimulatedOptions = typeof SimulatedSpec.Encoded;

/** Options of a device that gives nothing before it is stopped. */
export const STOP_COPY_ONLY = { preCopy: false, p2p: false } as const;

/** Fails with a SchemaError that names what is wrong, and its value. */
export const parseSimulatedSpec: (options: unknown) => Effect.Effect<SimulatedSpec, Schema.SchemaError> =
  Schema.decodeUnknownEffect(SimulatedSpec, {
    errors: "all",
    reportInput: true,
    onExcessProperty: "error",
  });
