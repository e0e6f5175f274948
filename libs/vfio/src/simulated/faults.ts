/** Counts how often a device comes to a place, and says when something goes wrong there. */
import type { DeviceFault } from "./spec.ts";

export interface Faults {
  /** The device comes to this place; what goes wrong now, null for nothing. */
  readonly strike: (at: DeviceFault["at"]) => DeviceFault["kind"] | null;
}

export const makeFaults = (faults: ReadonlyArray<DeviceFault>): Faults => {
  const visits = new Map<DeviceFault["at"], number>();
  return {
    strike: (at) => {
      const visit = (visits.get(at) ?? 0) + 1;
      visits.set(at, visit);
      const due = faults.find((fault) => fault.at === at && visit >= fault.nth && visit < fault.nth + fault.times);
      return due?.kind ?? null;
    },
  };
};
