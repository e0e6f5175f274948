/** Builtin guests with simulated VFIO devices, that go to and fro between the nodes of a testbed. */
import { startBuiltin } from "@godwit/guest";
import type { MigrationInfo } from "@godwit/protocol";
import type { SimulatedOptions } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import { type NodeName, otherNode, type Testbed, UNLIMITED } from "../testbed.ts";

/** A longer stop than any measured here: it is the devices that shall decide. */
export const PATIENT = { "downtime-limit": 600_000, "switchover-deadline": 600_000 } as const;

export interface DeviceGuestOptions {
  readonly name: string;
  readonly memoryBytes: number;
  readonly dirtyRateBytesPerSecond: number;
  readonly devices: ReadonlyArray<SimulatedOptions>;
}

export interface DeviceGuest {
  /** The node it is at now. */
  readonly at: () => NodeName;
  /** Moves it to the other node, without a limit of bandwidth. Each page is checked by the guest afterwards, each byte by its devices as they load it. */
  readonly move: (
    parameters: Readonly<Record<string, unknown>>,
    more?: {
      readonly capabilities?: Readonly<Record<string, boolean>>;
      readonly seen?: (info: MigrationInfo) => void;
    },
  ) => Effect.Effect<MigrationInfo, unknown>;
}

/** Starts the guest at node a; it ends with the testbed. */
export const bringDeviceGuest = Effect.fnUntraced(function* (
  testbed: Testbed,
  { name, memoryBytes, dirtyRateBytesPerSecond, devices }: DeviceGuestOptions,
): Effect.fn.Return<DeviceGuest, unknown> {
  const guest = yield* startBuiltin({
    name,
    memoryBytes,
    dirtyRateBytesPerSecond,
    devices: devices.map((options) => ({ options })),
    directory: `${testbed.memoryDirectory}/a`,
  });
  testbed.register("a", guest);
  let at: NodeName = "a";
  return {
    at: () => at,
    move: (parameters, { capabilities = {}, seen = () => {} } = {}) =>
      Effect.suspend(() => {
        const to = otherNode(at);
        return testbed.move(name, to, { ...UNLIMITED, ...parameters }, seen, "verified", capabilities).pipe(
          Effect.tap(() =>
            Effect.sync(() => {
              at = to;
            }),
          ),
        );
      }),
  };
});
