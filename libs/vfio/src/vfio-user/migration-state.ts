/** The migration state of a device behind a vfio-user server, asked, set, and led back to RUNNING. */
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import { DeviceError, type VfioDevice } from "../device.ts";
import type { DeviceState } from "../state-machine.ts";
import { type Connection, isRefused, REFUSED } from "./connection.ts";
import { DEVICE_STATE_BYTES, decodeDeviceState, deviceStateData, FEATURES, getFeature, setFeature } from "./feature.ts";

/** `device` is the name in errors; `timeout` is for what makes the device move: SET and RESET. */
export const makeMigrationState = (
  device: string,
  connection: Connection,
  timeout: Duration.Input,
): Pick<VfioDevice, "state" | "setState" | "reset"> => {
  const state: VfioDevice["state"] = connection
    .ask({
      operation: "get state",
      request: getFeature(FEATURES.deviceState, DEVICE_STATE_BYTES),
      read: ({ data }) => decodeDeviceState(data),
    })
    .pipe(Effect.map((answer) => answer.state));

  const setQuestion = (to: DeviceState) => ({
    operation: `set ${to}`,
    request: setFeature(FEATURES.deviceState, deviceStateData(to)),
    read: () => undefined,
    timeout,
  });
  const setState: VfioDevice["setState"] = (to) => connection.ask(setQuestion(to));

  const sendReset = connection.tryAsk({
    operation: "reset",
    request: { kind: "reset" } as const,
    read: () => undefined,
    timeout,
  });
  const failReset = (errno: string, reason: string) =>
    Effect.fail(new DeviceError({ device, operation: "reset", errno, reason }));

  const reset: VfioDevice["reset"] = Effect.gen(function* () {
    let answer = yield* sendReset;
    const stayed = yield* state;
    if (stayed !== "RUNNING") {
      const led = yield* connection.tryAsk(setQuestion("RUNNING"));
      if (isRefused(led)) {
        return yield* failReset(
          led.errno,
          `the device is ${yield* state}, and neither a reset nor a SET leads it to RUNNING`,
        );
      }
      // On the way to RUNNING the device may have taken over what it had loaded.
      answer = yield* sendReset;
    }
    if (isRefused(answer)) return yield* failReset(answer.errno, REFUSED);
    const now = yield* state;
    if (now !== "RUNNING") return yield* failReset("EIO", `the device is ${now} after it`);
  });
  return { state, setState, reset };
};
