/**
 * When to switch over, when to go on, when to give up: `downtime-limit` is the promise (DESIGN 5). QEMU looks at RAM alone and
 * never gives up; here every cost of the stop that was measured counts, and a migration that cannot end, ends.
 */
import type { Failure, Parameters, PassReport } from "@godwit/protocol";

/**
 * What a switchover costs besides moving pages, until this migration has measured it, ms: stopping, saving and loading the
 * guest's own device state, two compare-and-sets. QEMU 10 took 9 ms to save and 5 ms to load, a compare-and-set 1-3 ms.
 */
export const FIXED_COST_MS = 30;

export interface Progress {
  readonly startedAt: number;
  /** The smallest amount any pass has left so far, bytes, and when that was. */
  readonly bestRemaining: number;
  readonly bestAt: number;
}

export type Convergence =
  | { readonly _tag: "SwitchOver"; readonly expectedDowntimeMs: number }
  | { readonly _tag: "Iterate"; readonly expectedDowntimeMs: number; readonly progress: Progress }
  | { readonly _tag: "GiveUp"; readonly failure: Failure };

const timeFor = (bytes: number, bandwidth: number): number =>
  bytes === 0 ? 0 : bandwidth === 0 ? Number.POSITIVE_INFINITY : (bytes * 1000) / bandwidth;

/** Predicted downtime of a switchover at this pass, ms; infinite while no bandwidth was measured and something is left. */
export const expectedDowntimeMs = (
  pass: PassReport,
  parameters: Parameters,
  devices: DevicesAtPass = NO_DEVICES,
): number => {
  const available = parameters["avail-switchover-bandwidth"];
  // Both go at once, and share what there is: as if one after the other.
  const transferMs =
    timeFor(pass.remaining, available || pass.bandwidth) +
    timeFor(devices.remaining, available || devices.bandwidth || pass.bandwidth);
  const verifyMs = pass["verify-bandwidth"] === 0 ? 0 : (pass.unverified * 1000) / pass["verify-bandwidth"];
  // The guest is stopped while the last sync runs, which costs about what this one did.
  return transferMs + verifyMs + pass["sync-ms"] + FIXED_COST_MS + devices.switchoverMs;
};

/** The VFIO devices of both sides, as far as they decide when to switch over. */
export interface DevicesAtPass {
  /** Bytes that they still owe, and the rate at which their state went, bytes/s; 0: not measured yet. */
  readonly remaining: number;
  readonly bandwidth: number;
  /** How long their arcs of a switchover take at both sides, as measured before, ms. */
  readonly switchoverMs: number;
  /** Capability `switchover-ack`: those that have not loaded their initial data at the destination; null: not known yet. */
  readonly unacknowledged: ReadonlyArray<string> | null;
}

export const NO_DEVICES: DevicesAtPass = { remaining: 0, bandwidth: 0, switchoverMs: 0, unacknowledged: [] };

const giveUp = (code: Failure["code"], reason: string): Convergence => ({
  _tag: "GiveUp",
  failure: { code, actor: "coordinator", step: "converge", reason },
});

export const judge = (
  pass: PassReport,
  progress: Progress,
  parameters: Parameters,
  now: number,
  devices: DevicesAtPass = NO_DEVICES,
): Convergence => {
  const expected = expectedDowntimeMs(pass, parameters, devices);
  const acknowledged = devices.unacknowledged?.length === 0;
  // A guest that does not run cannot be disturbed, and its memory no longer changes.
  if (acknowledged && (!pass.running || expected <= parameters["downtime-limit"]))
    return { _tag: "SwitchOver", expectedDowntimeMs: expected };
  const maxPasses = parameters["max-passes"];
  if (maxPasses !== 0 && pass.round > maxPasses) {
    return giveUp(
      "pass-limit",
      `${maxPasses} passes did not bring the predicted downtime (${Math.round(expected)} ms) under ${parameters["downtime-limit"]} ms`,
    );
  }
  const remaining = pass.remaining + devices.remaining;
  const better = remaining < progress.bestRemaining;
  const stalledMs = now - progress.bestAt;
  const stallTimeout = parameters["stall-timeout"];
  if (!better && stallTimeout !== 0 && stalledMs >= stallTimeout) {
    if (!acknowledged)
      return { _tag: "GiveUp", failure: ackMissing(devices, `within stall-timeout (${stallTimeout} ms)`) };
    return giveUp(
      "stalled",
      `for ${stalledMs} ms no pass left less than ${progress.bestRemaining} bytes; ${whyStalled(pass, expected, devices)}`,
    );
  }
  return {
    _tag: "Iterate",
    expectedDowntimeMs: expected,
    progress: better ? { ...progress, bestRemaining: remaining, bestAt: now } : progress,
  };
};

/** What an operator has to do something about: the guest, or the cost of looking at its memory. */
const whyStalled = (pass: PassReport, expectedMs: number, devices: DevicesAtPass): string => {
  const scanMs = Math.round(pass["sync-ms"]);
  if (devices.switchoverMs > expectedMs - devices.switchoverMs)
    return `stopping and starting the VFIO devices alone takes ${Math.round(devices.switchoverMs)} ms of the predicted downtime (${Math.round(expectedMs)} ms)`;
  return expectedMs - scanMs > scanMs
    ? "the guest dirties memory as fast as it is sent"
    : `the scan for dirty pages alone takes ${scanMs} ms of the predicted downtime (${Math.round(expectedMs)} ms)`;
};

const ackMissing = ({ unacknowledged }: DevicesAtPass, when: string): Failure => ({
  code: "switchover-ack-missing",
  actor: "coordinator",
  step: "wait for switchover-ack",
  reason:
    unacknowledged === null
      ? `the destination did not say ${when} which devices have loaded their initial data`
      : `device ${unacknowledged.join(", ")} did not load its initial data at the destination ${when}`,
});

/** `migration-deadline`, checked at any time before the switchover. */
export const deadlinePassed = (
  progress: Progress,
  parameters: Parameters,
  now: number,
  devices: DevicesAtPass = NO_DEVICES,
): Failure | null => {
  const deadline = parameters["migration-deadline"];
  if (deadline === 0 || now - progress.startedAt < deadline) return null;
  if (devices.unacknowledged?.length !== 0) return ackMissing(devices, `within migration-deadline (${deadline} ms)`);
  return {
    code: "migration-deadline",
    actor: "coordinator",
    step: "converge",
    reason: `not done within migration-deadline (${deadline} ms)`,
  };
};
