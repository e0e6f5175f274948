/** QEMU's migration parameters by QEMU's names, units, ranges and defaults (qapi/migration.json), and godwit's own. */
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import type { Lane } from "./direct-lane.ts";
import type { Failure } from "./failure.ts";
import { BLOCK_BYTES_MAX, CHANNELS_MAX, PAGE_BYTES, SLICE_BYTES_MAX } from "./limits.ts";
import { COMPRESSIONS, type Compression } from "./packet.ts";

const int = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }));
/** QEMU allows 2^64 - 1 bytes/s; numbers here are exact up to 2^53 - 1, which no link reaches. */
const bytesPerSecond = int(0, Number.MAX_SAFE_INTEGER);
/** 0 to 2000 s, as QEMU has it. */
const DOWNTIME_LIMIT_MAX_MS = 2_000_000;
/** A month: a longer "deadline" is a typing error. */
const DEADLINE_MAX_MS = 31 * 24 * 3_600_000;

/** As long as a RAMBlock may be: a guest has no use for more. */
const XBZRLE_CACHE_BYTES_MAX = BLOCK_BYTES_MAX;
const powerOfTwo = Schema.makeFilter((value: number) =>
  Number.isInteger(Math.log2(value)) ? undefined : "not a power of two",
);
const XBZRLE_CACHE_BYTES_DEFAULT = 64 * 1024 ** 2;

/** 256 KiB each: a gigabyte. */
const QUEUED_BUFFERS_MAX = 4096;
const QUEUED_BYTES_MAX = QUEUED_BUFFERS_MAX * SLICE_BYTES_MAX;

export const Parameters = Schema.Struct({
  "downtime-limit": int(0, DOWNTIME_LIMIT_MAX_MS),
  "max-bandwidth": bytesPerSecond,
  "max-postcopy-bandwidth": bytesPerSecond,
  "postcopy-after-rounds": int(0, 1_000_000),
  "postcopy-prefetch": Schema.Literals(["on", "off"]),
  "auto-recover": Schema.Literals(["on", "off"]),
  "avail-switchover-bandwidth": bytesPerSecond,
  /** What was stored before there was a choice of it has none. */
  lane: Schema.Literals(["auto", "nats", "direct"]).pipe(
    Schema.withDecodingDefaultTypeKey(Effect.succeed("nats" as const)),
  ),
  "multifd-channels": int(1, CHANNELS_MAX),
  "multifd-compression": Schema.Literals([...COMPRESSIONS, "auto"]),
  "multifd-zlib-level": int(0, 9),
  "multifd-zstd-level": int(0, 20),
  "zero-page-detection": Schema.Literals(["none", "legacy", "multifd"]),
  /** What was stored before there was one has none. */
  "xbzrle-cache-size": int(PAGE_BYTES, XBZRLE_CACHE_BYTES_MAX)
    .check(powerOfTwo)
    .pipe(Schema.withDecodingDefaultTypeKey(Effect.succeed(XBZRLE_CACHE_BYTES_DEFAULT))),
  "migration-deadline": int(0, DEADLINE_MAX_MS),
  "switchover-deadline": int(100, DEADLINE_MAX_MS),
  "max-passes": int(0, 1_000_000),
  "stall-timeout": int(0, DEADLINE_MAX_MS),
  "dirty-tracker": Schema.Literals(["auto", "userfaultfd", "soft-dirty", "content"]),
  "direct-io": Schema.Literals(["on", "off"]),
  "x-allow-pre-copy": Schema.Literals(["on", "off"]),
  "x-migration-multifd-transfer": Schema.Literals(["auto", "on", "off"]),
  "x-migration-max-queued-buffers": int(1, QUEUED_BUFFERS_MAX),
  "x-migration-max-queued-bytes": int(SLICE_BYTES_MAX, QUEUED_BYTES_MAX),
  "x-migration-load-config-after-iter": Schema.Literals(["auto", "on", "off"]),
});
export type Parameters = typeof Parameters.Type;
export type ParameterName = keyof Parameters;

interface Description {
  readonly default: Parameters[ParameterName];
  readonly unit: string;
  /** What the value must be, in the words of QEMU's own messages. */
  readonly expects: string;
  /** May change while a migration runs; the others are frozen when it starts (R9). */
  readonly live: boolean;
  readonly what: string;
}

export const PARAMETERS: Readonly<Record<ParameterName, Description>> = {
  "downtime-limit": {
    default: 300,
    unit: "ms",
    expects: "an integer in the range of 0 to 2000000 ms",
    live: true,
    what: "the longest the guest may stand still",
  },
  "max-bandwidth": {
    default: 128 * 1024 ** 2,
    unit: "bytes/s",
    expects: "an integer in the range of 0 to 2^53-1 bytes/s",
    live: true,
    what: "bandwidth of precopy; 0 is unlimited",
  },
  "max-postcopy-bandwidth": {
    default: 0,
    unit: "bytes/s",
    expects: "an integer in the range of 0 to 2^53-1 bytes/s",
    live: true,
    what: "bandwidth of pages that a running guest does not wait for; 0 is unlimited",
  },
  "postcopy-after-rounds": {
    default: 0,
    unit: "rounds",
    expects: "an integer in the range of 0 to 1000000",
    live: true,
    what: "start postcopy when so many rounds of precopy did not converge, with capability postcopy-ram; 0: only when asked to, or when precopy would give up",
  },
  "postcopy-prefetch": {
    default: "on",
    unit: "",
    expects: "one of on, off",
    live: false,
    what: "pages that the guest does not wait for come from where it touched last; off: from front to back",
  },
  "auto-recover": {
    default: "on",
    unit: "",
    expects: "one of on, off",
    live: false,
    what: "a postcopy that was cut off goes on by itself; off: it stays postcopy-paused until `godwit recover`",
  },
  "avail-switchover-bandwidth": {
    default: 0,
    unit: "bytes/s",
    expects: "an integer in the range of 0 to 2^53-1 bytes/s",
    live: true,
    what: "bandwidth to reckon with during switchover; 0 measures it",
  },
  lane: {
    default: "nats",
    unit: "",
    expects: "one of auto, nats, direct",
    live: false,
    what: "how packets travel: through NATS, or by connections from the workers to the destination, which NATS takes over from when they break; auto: those where they can be had; direct: refused where the destination offers none",
  },
  "multifd-channels": {
    default: 2,
    unit: "channels",
    expects: "a value between 1 and 255",
    live: false,
    what: "number of multifd channels",
  },
  "multifd-compression": {
    default: "none",
    unit: "",
    expects: "one of none, zlib, zstd, auto",
    live: false,
    what: "compression of page payloads; auto: none or zstd, whichever moves more of them in a second, found by trying again and again",
  },
  "multifd-zlib-level": {
    default: 1,
    unit: "level",
    expects: "a value between 0 and 9",
    live: false,
    what: "zlib level",
  },
  "multifd-zstd-level": {
    default: 1,
    unit: "level",
    expects: "a value between 0 and 20",
    live: false,
    what: "zstd level",
  },
  "zero-page-detection": {
    default: "multifd",
    unit: "",
    expects: "one of none, legacy, multifd",
    live: false,
    what: "who looks for zero pages: nobody, the RAM sender, the workers",
  },
  "xbzrle-cache-size": {
    default: XBZRLE_CACHE_BYTES_DEFAULT,
    unit: "bytes",
    expects: "a power of two no less than the target page size, and at most 8 TiB",
    live: false,
    what: "what may be kept of pages that were sent, with capability xbzrle; no more of it is used than the guest has memory",
  },
  "migration-deadline": {
    default: 3_600_000,
    unit: "ms",
    expects: "an integer in the range of 0 to 2678400000 ms",
    live: true,
    what: "the longest a migration may take before it gives up; 0 is for ever",
  },
  "switchover-deadline": {
    default: 15_000,
    unit: "ms",
    expects: "an integer in the range of 100 to 2678400000 ms",
    live: true,
    what: "a switchover that takes longer is undone",
  },
  "max-passes": {
    default: 1000,
    unit: "passes",
    expects: "an integer in the range of 0 to 1000000",
    live: true,
    what: "passes before precopy gives up; 0 is unlimited",
  },
  "stall-timeout": {
    default: 120_000,
    unit: "ms",
    expects: "an integer in the range of 0 to 2678400000 ms",
    live: true,
    what: "precopy gives up when for so long no pass left less than the best before it; 0 is for ever",
  },
  "dirty-tracker": {
    default: "auto",
    unit: "",
    expects: "one of auto, userfaultfd, soft-dirty, content",
    live: false,
    what: "how writes of the guest are noticed",
  },
  "direct-io": {
    default: "off",
    unit: "",
    expects: "one of on, off",
    live: false,
    what: "pages of a checkpoint are written and read past the page cache (O_DIRECT)",
  },
  "x-allow-pre-copy": {
    default: "on",
    unit: "",
    expects: "one of on, off",
    live: false,
    what: "use PRE_COPY of VFIO devices that have it",
  },
  "x-migration-multifd-transfer": {
    default: "auto",
    unit: "",
    expects: "one of auto, on, off",
    live: false,
    what: "move the state of VFIO devices over all multifd channels, side by side; off: over the first one, device after device",
  },
  "x-migration-max-queued-buffers": {
    default: 256,
    unit: "buffers",
    expects: "a value between 1 and 4096",
    live: false,
    what: "slices of one VFIO device that may wait at the destination for an earlier one",
  },
  "x-migration-max-queued-bytes": {
    default: 32 * 1024 ** 2,
    unit: "bytes",
    expects: "an integer in the range of 262144 to 1073741824 bytes",
    live: false,
    what: "the same, in bytes",
  },
  "x-migration-load-config-after-iter": {
    default: "auto",
    unit: "",
    expects: "one of auto, on, off",
    live: false,
    what: "load the configuration space of VFIO devices only once all memory and device data is loaded; auto: on for arm64",
  },
};

const table: Readonly<Record<string, Description>> = PARAMETERS;
const isName = (name: string): name is ParameterName => Object.hasOwn(table, name);
const isValid = (name: ParameterName, value: unknown): boolean => Schema.is(Parameters.fields[name])(value);

export const PARAMETER_DEFAULTS = Object.fromEntries(
  Object.entries(table).map(([name, d]) => [name, d.default]),
) as Parameters;

/** The codec where nobody finds out which one is better: with `auto`, bytes go as they are. */
export const fixedCompressionOf = ({ "multifd-compression": asked }: Parameters): Compression =>
  asked === "auto" ? "none" : asked;

/** Of the compression that is chosen, or may be. */
export const compressionLevelOf = (parameters: Parameters): number =>
  parameters["multifd-compression"] === "zlib" ? parameters["multifd-zlib-level"] : parameters["multifd-zstd-level"];

/** The lane that workers are told to try. */
export const wantedLane = ({ lane }: Parameters): Lane => (lane === "nats" ? "nats" : "direct");

const refuse = (code: Failure["code"], reason: string): Failure => ({
  code,
  actor: "coordinator",
  step: "check parameters",
  reason,
});

const check = (asked: Readonly<Record<string, unknown>>): Failure | null => {
  for (const [name, value] of Object.entries(asked)) {
    if (!isName(name)) return refuse("unknown-parameter", `Invalid parameter '${name}'`);
    if (!isValid(name, value)) {
      return refuse(
        "invalid-parameter",
        `Parameter '${name}' expects ${PARAMETERS[name].expects}, got ${JSON.stringify(value)}`,
      );
    }
  }
  return null;
};

/** The parameters of a new migration: defaults, and on top what was asked. The whole set is checked, so no order of setting can wedge it. */
export const proposeParameters = (asked: Readonly<Record<string, unknown>>): Parameters | Failure =>
  check(asked) ?? { ...PARAMETER_DEFAULTS, ...(asked as Partial<Parameters>) };

/** Changes parameters of a running migration; those that are frozen are refused. */
export const tuneParameters = (current: Parameters, asked: Readonly<Record<string, unknown>>): Parameters | Failure => {
  const wrong = check(asked);
  if (wrong !== null) return wrong;
  const frozen = Object.keys(asked).find((name) => !PARAMETERS[name as ParameterName].live);
  if (frozen !== undefined) return refuse("wrong-state", `Parameter '${frozen}' cannot change while a migration runs`);
  return { ...current, ...(asked as Partial<Parameters>) };
};

/** A parameter as text from a command line or an environment variable, as the type its schema wants. */
export const parseParameter = (name: string, text: string): unknown =>
  typeof table[name]?.default === "number" && /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
