/**
 * Each thing that a device does in a switchover has `downtime-limit` for its budget (what the discussion of the v2 protocol in 2022 asked
 * for its arcs): what takes longer is not waited for. The RAM sender undoes the switchover; the device's answer comes when it comes.
 */
import { deviceFailure } from "./saving-device.ts";
import { fail, type Saving, type SavingDevice } from "./saving-state.ts";

const isCounted = ({ phase, failure }: Saving): boolean =>
  (phase === "Quiescing" || phase === "Stopping") && failure === null;

/** What began while the guest still ran is counted from when it stood still. */
const since = (saving: Saving, device: SavingDevice): number => Math.max(device.busySince, saving.phaseSince);

/** Fails for a device that is still busy when its time is up, whatever it is busy with. */
export const check = (saving: Saving, now: number): void => {
  if (!isCounted(saving)) return;
  for (const device of saving.devices) if (device.busy !== null) keep(saving, device, now - since(saving, device), now);
};

/** The device has answered, after so many ms by its own measure. */
export const keep = (saving: Saving, device: SavingDevice, ms: number, now: number): void => {
  const limit = saving.parameters["downtime-limit"];
  const counted = Math.min(ms, now - since(saving, device));
  if (!isCounted(saving) || counted <= limit) return;
  const { busy, state } = device;
  const what = busy?._tag === "Arc" ? `${state} -> ${busy.to}` : `what it was asked for in ${state}`;
  const reason = `${what} takes ${Math.round(counted)} ms, downtime-limit is ${limit} ms`;
  fail(saving, { ...deviceFailure(device, "stop the device", reason), code: "device-over-budget" });
};

/** When the first device's time is up, ms; null: none is waited for. */
export const endsAt = (saving: Saving): number | null => {
  const ends = saving.devices.flatMap((device) => (device.busy === null ? [] : [since(saving, device)]));
  return !isCounted(saving) || ends.length === 0 ? null : Math.min(...ends) + saving.parameters["downtime-limit"] + 1;
};
