/** `--vfio 2x300MB`: simulated VFIO devices for a builtin guest; and what stands behind `vfio=` of `--guest vm1=builtin:`. */
import type { BuiltinDevice } from "@godwit/guest";
import { DEVICES_MAX } from "@godwit/protocol";
import { parseSize } from "../terminal/size.ts";
import type { Option } from "./option.ts";
import { UsageError } from "./usage-error.ts";

/** A device of the size that the switchover-ack series measured with took 1,480 ms to get its resources for 300 MB; a tenth of that keeps a demo short. */
const ALLOCATION_MS_PER_300_MB = 148;
/** A sixteenth of its state says what the destination must allocate. */
const INITIAL_PART = 16;
/** What it changes by itself while it runs, bytes/s. */
const DIRTY_RATE = 2_000_000;

export const vfioOption: Option<ReadonlyArray<BuiltinDevice>> = {
  what: "VFIO devices of the guest, simulated, and the state of each",
  value: "NxSIZE",
  repeatable: true,
  shownDefault: "none",
  read: (texts, name) => readSimulated(texts, name),
};

/** Devices vfio0, vfio1, ... of these sizes. Throws a UsageError that shows the text. */
export const readSimulated = (texts: ReadonlyArray<string>, name: string): ReadonlyArray<BuiltinDevice> => {
  const devices = texts.flatMap((text) => sizesOf(text, name)).map(deviceOf);
  if (devices.length > DEVICES_MAX)
    throw new UsageError(`${name}: ${devices.length} devices, at most ${DEVICES_MAX} are moved`);
  return devices;
};

/** `2x300MB` twice that size, `300MB` once. */
const sizesOf = (text: string, name: string): ReadonlyArray<number> => {
  const [, count = "1", sizeText = text] = /^(\d{1,4})x(.+)$/.exec(text) ?? [];
  const size = parseSize(sizeText);
  if (size._tag === "BadSize")
    throw new UsageError(
      `${name}: ${size.reason.replace("write for example", "write for example 2x300MB, or as its size")}`,
    );
  if (size.bytes === 0 || Number(count) === 0)
    throw new UsageError(`${name} is ${JSON.stringify(text)}, which is no device at all`);
  return Array.from({ length: Number(count) }, () => size.bytes);
};

const deviceOf = (stateBytes: number, index: number): BuiltinDevice => ({
  options: {
    name: `vfio${index}`,
    stateBytes,
    initialBytes: Math.ceil(stateBytes / INITIAL_PART),
    dirtyBytesPerSecond: DIRTY_RATE,
    allocationMs: Math.round((stateBytes * ALLOCATION_MS_PER_300_MB) / 300e6),
    seed: index + 1,
  },
});
