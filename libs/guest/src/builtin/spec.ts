/** What a builtin guest is: its size, its workload, and the limits of both. Plain data that travels as JSON to its process. */
import { PAGE_BYTES, type PageMix } from "./kernel/page.ts";
import { Refusal } from "./refusal.ts";

/** What the guest's vCPUs do all day; part of its device state, so the destination goes on with the same. */
export interface Workload {
  /** Unsigned 32-bit number; two guests with one seed hold the same pages. */
  readonly seed: number;
  readonly vcpus: number;
  /** All vCPUs together, bytes/s; 0: the guest idles. What the host cannot keep up with is dropped, as on a real machine. */
  readonly dirtyRateBytesPerSecond: number;
  /** The part of memory that is written over and over, bytes, rounded up to whole pages for each vCPU. */
  readonly workingSetBytes: number;
  readonly mix: PageMix;
  /** The last part of memory, bytes, which is left to devices: vCPUs neither write nor check it. Absent: none. */
  readonly dmaWindowBytes?: number;
}

/**
 * What the process is started with.
 *
 * - `socket`, `ramPath`: files the process makes and removes, absolute paths
 * - `boot`: fills its memory and runs; `incoming`: waits for memory and device state, with `vcpus` threads started ahead,
 *   since starting one takes 100 ms that would count as downtime
 */
export type ProcessSpec = {
  readonly name: string;
  readonly socket: string;
  readonly ramPath: string;
  readonly memoryBytes: number;
} & ({ readonly role: "boot"; readonly workload: Workload } | { readonly role: "incoming"; readonly vcpus: number });

/** The largest memory, bytes: the ledger (4 bytes a page) then takes 1 GiB. */
export const MEMORY_BYTES_MAX = 2 ** 40;
/** The most vCPU threads: beyond it a host has long run out of processors to run them. */
export const VCPUS_MAX = 64;
/** The highest dirty rate, bytes/s: no memory bus is faster. */
export const DIRTY_RATE_MAX = 2 ** 40;
/** The longest path of a unix socket, bytes: sockaddr_un has 108 with the closing zero. */
export const SOCKET_PATH_BYTES_MAX = 107;
/** What a name may look like: it becomes part of file names. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

const invalid = (reason: string): Refusal => new Refusal("invalid-parameter", reason);

const requireInteger = (what: string, value: unknown, min: number, max: number): number => {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) {
    throw invalid(`${what} is ${JSON.stringify(value)}, not a whole number from ${min} to ${max}`);
  }
  return value;
};

const requireObject = (what: string, value: unknown): Record<string, unknown> => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalid(`${what} is not an object`);
  return value as Record<string, unknown>;
};

const requirePath = (what: string, value: unknown): string => {
  if (typeof value !== "string" || !value.startsWith("/") || value.includes("\0")) {
    throw invalid(`${what} is ${JSON.stringify(value)}, not an absolute path`);
  }
  return value;
};

/** The name of a guest; throws a Refusal that shows it. */
export const parseName = (value: unknown): string => {
  if (typeof value !== "string" || !NAME.test(value)) {
    throw invalid(`guest name ${JSON.stringify(value)} is not 1 to 63 letters, digits, dots, dashes or underscores`);
  }
  return value;
};

/** The size of a guest's memory, bytes: a multiple of the page size. */
export const parseMemoryBytes = (value: unknown): number => {
  const bytes = requireInteger("memory size", value, PAGE_BYTES, MEMORY_BYTES_MAX);
  if (bytes % PAGE_BYTES !== 0) throw invalid(`memory size ${bytes} is not a multiple of ${PAGE_BYTES} bytes`);
  return bytes;
};

/** A path fit for a unix socket. */
export const parseSocketPath = (value: unknown): string => {
  const path = requirePath("socket", value);
  const bytes = Buffer.byteLength(path);
  if (bytes > SOCKET_PATH_BYTES_MAX) {
    throw invalid(
      `socket path ${path} has ${bytes} bytes, more than the ${SOCKET_PATH_BYTES_MAX} a unix socket may have`,
    );
  }
  return path;
};

const parseMix = (value: unknown): PageMix => {
  const mix = requireObject("mix", value);
  const percent = (kind: string): number => requireInteger(`mix.${kind}`, mix[kind], 0, 100);
  const parsed = { zero: percent("zero"), compressible: percent("compressible"), random: percent("random") };
  const counted = mix["counted"] === undefined ? 0 : percent("counted");
  const sum = parsed.zero + parsed.compressible + parsed.random + counted;
  if (sum !== 100) throw invalid(`the mix adds up to ${sum} percent, not 100`);
  return counted === 0 ? parsed : { ...parsed, counted };
};

/** A workload for a guest of `memoryBytes`; throws a Refusal that names the field and its value. */
export const parseWorkload = (value: unknown, memoryBytes: number): Workload => {
  const workload = requireObject("workload", value);
  const window = workload["dmaWindowBytes"];
  const dmaWindowBytes = window === undefined ? 0 : requireInteger("DMA window", window, 0, memoryBytes - PAGE_BYTES);
  if (dmaWindowBytes % PAGE_BYTES !== 0)
    throw invalid(`the DMA window has ${dmaWindowBytes} bytes, not a multiple of ${PAGE_BYTES}`);
  const pages = (memoryBytes - dmaWindowBytes) / PAGE_BYTES;
  return {
    seed: requireInteger("seed", workload["seed"], 0, 2 ** 32 - 1),
    vcpus: requireInteger("vcpus", workload["vcpus"], 1, Math.min(VCPUS_MAX, pages)),
    dirtyRateBytesPerSecond: requireInteger("dirty rate", workload["dirtyRateBytesPerSecond"], 0, DIRTY_RATE_MAX),
    workingSetBytes: requireInteger("working set", workload["workingSetBytes"], PAGE_BYTES, pages * PAGE_BYTES),
    mix: parseMix(workload["mix"]),
    ...(dmaWindowBytes === 0 ? {} : { dmaWindowBytes }),
  };
};

/** What the process finds on its command line. */
export const parseProcessSpec = (text: string): ProcessSpec => {
  const spec = requireObject("the spec", JSON.parse(text));
  const memoryBytes = parseMemoryBytes(spec["memoryBytes"]);
  const frame = {
    name: parseName(spec["name"]),
    socket: parseSocketPath(spec["socket"]),
    ramPath: requirePath("ramPath", spec["ramPath"]),
    memoryBytes,
  };
  const pages = memoryBytes / PAGE_BYTES;
  switch (spec["role"]) {
    case "boot":
      return { ...frame, role: "boot", workload: parseWorkload(spec["workload"], memoryBytes) };
    case "incoming":
      return {
        ...frame,
        role: "incoming",
        vcpus: requireInteger("vcpus", spec["vcpus"], 1, Math.min(VCPUS_MAX, pages)),
      };
    default:
      throw invalid(`role is ${JSON.stringify(spec["role"])}, not "boot" or "incoming"`);
  }
};
