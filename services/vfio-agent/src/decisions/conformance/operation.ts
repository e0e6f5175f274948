/** One thing that a device is asked to do: it takes its time, fails, or never answers. */
import type { Failure } from "@godwit/protocol";
import type { DeviceState } from "@godwit/vfio";
import type { ModelDevice } from "./model-device.ts";
import { must } from "./violation.ts";
import type { World } from "./world.ts";

/** A connection to a device that is busy for another waits no longer than this, ms. */
const OPEN_MS = 1500;

export const failureOf = (reason: string): Failure => ({
  code: "device-failed",
  actor: "vfio-agent",
  side: "source",
  step: "a fault",
  reason,
});

/** Asks the device; `work` is done after a while, or fails, or never comes. */
export const operate = (
  world: World,
  device: ModelDevice,
  work: (isFault: boolean, ms: number) => void,
  isSlowable: boolean,
): void => {
  const { faults, parameters } = world.setting;
  const limit = parameters["downtime-limit"];
  must(!device.isBusy, `${device.traits.device} is asked for two things at once`);
  device.isBusy = true;
  if (world.strikes(faults.hang)) {
    world.isHung = true;
    return;
  }
  const isSlow = isSlowable && world.strikes(faults.slow);
  const ms = isSlow ? world.dice.between(limit, 3 * limit) : world.dice.between(0, 8);
  world.timeline.after(ms, () => {
    device.isBusy = false;
    work(world.strikes(faults.fail), ms);
    world.check();
  });
};

/** A fault on the way leaves a device anywhere on it, or in ERROR. */
export const walk = (world: World, device: ModelDevice, to: DeviceState, isFault: boolean): string | null => {
  if (!isFault) return device.go(to, world.now, Number.POSITIVE_INFINITY);
  if (world.dice.chance(0.3)) device.state = "ERROR";
  else device.go(to, world.now, world.dice.between(0, 2));
  return device.state === to ? null : "a fault on the way";
};

/** Waits until nobody else keeps the device busy; false: too long. */
export const opened = (world: World, device: ModelDevice, done: (isOpen: boolean) => void, since = world.now): void => {
  world.timeline.after(2, () => {
    if (!device.isBusy) return done(!world.strikes(world.setting.faults.fail));
    if (world.now - since >= OPEN_MS) return done(false);
    opened(world, device, done, since);
  });
};
