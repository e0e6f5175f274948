/** How long each device's arcs took: what a prediction of the downtime has to go by. Kept as long as the agent lives, by guest: two may have a `nic0`. */

/** Of one guest's devices. */
export interface Latencies {
  readonly measured: (device: string, from: string, to: string, ms: number) => void;
  /** Of the arcs from `from` to `to`, the latest measurement of each, summed, ms; 0 where none was measured. */
  readonly of: (device: string, arcs: ReadonlyArray<readonly [from: string, to: string]>) => number;
}

/** Devices whose measurements are kept: a host has fewer. */
const DEVICES_KEPT_MAX = 1024;

export const makeLatencies = (): ((guest: string) => Latencies) => {
  const byDevice = new Map<string, Map<string, number>>();
  return (guest) => ({
    measured: (device, from, to, ms) => {
      const key = `${guest}/${device}`;
      const arcs = byDevice.get(key) ?? new Map<string, number>();
      byDevice.set(key, arcs.set(`${from}->${to}`, ms));
      for (const oldest of byDevice.keys()) {
        if (byDevice.size <= DEVICES_KEPT_MAX) break;
        byDevice.delete(oldest);
      }
    },
    of: (device, arcs) =>
      arcs.reduce((sum, [from, to]) => sum + (byDevice.get(`${guest}/${device}`)?.get(`${from}->${to}`) ?? 0), 0),
  });
};

/** What a switchover asks of a device at the source, one way or another, */
export const STOPPING_ARCS = [
  ["PRE_COPY", "PRE_COPY_P2P"],
  ["PRE_COPY", "STOP_COPY"],
  ["PRE_COPY_P2P", "STOP_COPY"],
  ["RUNNING", "RUNNING_P2P"],
  ["RUNNING_P2P", "STOP_COPY"],
  ["RUNNING", "STOP_COPY"],
] as const;
/** and at the destination. */
export const STARTING_ARCS = [
  ["RESUMING", "STOP"],
  ["STOP", "RUNNING_P2P"],
  ["STOP", "RUNNING"],
  ["RUNNING_P2P", "RUNNING"],
] as const;
