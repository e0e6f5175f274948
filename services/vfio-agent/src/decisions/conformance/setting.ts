/** What one run is like. */
import { PARAMETER_DEFAULTS, type Parameters } from "@godwit/protocol";
import { makeDice } from "./dice.ts";
import type { Traits } from "./model-device.ts";

/** Protections that a run can leave out, to show that the invariants notice. */
export const BREAKAGES = [
  "acknowledge before it is written",
  "slices in the order of arrival",
  "no window",
  "no digest",
  "devices stop without regard for each other",
  "devices start before the record is won",
  "a restarted agent goes on with a session it does not know",
  "a device does two things at once",
  "an arc may take for ever",
] as const;
export type Breakage = (typeof BREAKAGES)[number];

/** How likely each is, for each thing that is asked of a device, or each message. */
export interface Faults {
  readonly fail: number;
  readonly slow: number;
  readonly hang: number;
  readonly lose: number;
  readonly double: number;
  readonly delayMs: number;
  readonly refuse: number;
  /** A byte that changes on its way, past every checksum. */
  readonly flip: number;
  /** Agents and workers that die, in the first seconds. */
  readonly restart: number;
  readonly worker: number;
  readonly abort: number;
}
export const QUIET: Faults = {
  fail: 0,
  slow: 0,
  hang: 0,
  lose: 0,
  double: 0,
  delayMs: 3,
  refuse: 0,
  flip: 0,
  restart: 0,
  worker: 0,
  abort: 0,
};
export const LOSSY: Faults = { ...QUIET, lose: 0.05, double: 0.1, delayMs: 40, refuse: 0.02, worker: 0.8 };
export const STORMY: Faults = { ...LOSSY, fail: 0.01, slow: 0.01, hang: 0.003, flip: 0.001, restart: 0.2, abort: 0.2 };

export interface Setting {
  readonly seed: number;
  readonly devices: ReadonlyArray<Traits>;
  readonly parameters: Parameters;
  readonly faults: Faults;
  readonly broken: Breakage | null;
  /** The guest is not stopped before all have loaded their initial data. */
  readonly switchoverAck: boolean;
}

export type Change = Partial<Omit<Setting, "parameters" | "seed">> & { readonly parameters?: Partial<Parameters> };

/** Drawn from the seed, but for what is given. */
export const settingOf = (seed: number, change: Change = {}): Setting => {
  const dice = makeDice(seed);
  const devices = Array.from({ length: dice.between(1, 4) }, (_, index): Traits => {
    const tells = dice.chance(0.8);
    return {
      device: `dev${index}`,
      features: { stopCopy: true, p2p: dice.chance(0.6), preCopy: dice.chance(0.7) },
      initialBytes: dice.pick([0, 3, 5000, 40_000]),
      // Where the initial data ends of one that changes all the time, and does not tell, nobody knows.
      dirtyBytes: tells ? dice.pick([0, 0, 10, 300]) : 0,
      stopBytes: dice.pick([0, 1, 4096, 30_000]),
      configBytes: dice.pick([0, 256, 9000]),
      tells,
    };
  });
  const buffers = dice.pick([1, 3, 64]);
  return {
    seed,
    devices,
    faults: QUIET,
    broken: null,
    switchoverAck: dice.chance(0.5),
    ...change,
    parameters: {
      ...PARAMETER_DEFAULTS,
      "max-bandwidth": dice.pick([0, 0, 10_000_000]),
      "multifd-channels": dice.pick([1, 2, 5]),
      "x-allow-pre-copy": dice.chance(0.15) ? "off" : "on",
      "x-migration-multifd-transfer": dice.pick(["auto", "on", "off"]),
      "x-migration-max-queued-buffers": buffers,
      "x-migration-max-queued-bytes": dice.pick([4096, 12_000, 1_000_000]),
      "x-migration-load-config-after-iter": dice.pick(["on", "off"]),
      ...change.parameters,
    },
  };
};
