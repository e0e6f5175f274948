/** One device in the hands of a session: its operations, timed, with every failure told in the words of the protocol. */
import { hostMicros } from "@godwit/actor";
import { type Failure, fromError, GodwitError } from "@godwit/protocol";
import { type DeviceError, type DeviceSpec, type DeviceState, openDevice, type VfioDevice } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import * as Semaphore from "effect/Semaphore";
import type { Latencies } from "./latencies.ts";

export interface DeviceAccess {
  readonly name: string;
  /** Opens it, anew if it was open. */
  readonly open: Effect.Effect<VfioDevice, Failed>;
  readonly use: <A>(
    step: string,
    work: (device: VfioDevice) => Effect.Effect<A, DeviceError>,
  ) => Effect.Effect<A, Failed>;
  readonly close: Effect.Effect<void>;
  /** Goes an arc. Measured also when it fails, so that the next attempt reckons with it. */
  readonly arc: (to: DeviceState) => Effect.Effect<ArcTimes, Failed>;
}

/** How long an arc took, ms, and when it began by this host's monotonic clock, us. */
export interface ArcTimes {
  readonly ms: number;
  readonly at: number;
}

/** A failure, and where the device is after it; null: it does not say. */
export interface Failed {
  readonly state: DeviceState | null;
  readonly failure: Failure;
}

export const accessDevice = Effect.fnUntraced(function* (
  spec: DeviceSpec,
  side: "source" | "destination",
  latencies: Latencies,
): Effect.fn.Return<DeviceAccess, never, Scope.Scope> {
  const scope = yield* Effect.scope;
  // A device does one thing at a time.
  const one = yield* Semaphore.make(1);
  let device: VfioDevice | null = null;
  let opened: Scope.Closeable | null = null;

  const close = Effect.suspend(() => {
    const former = opened;
    opened = null;
    device = null;
    return former === null ? Effect.void : Scope.close(former, Exit.void);
  });

  const explain = (step: string) => (error: DeviceError) =>
    Effect.gen(function* () {
      const state =
        device === null
          ? null
          : yield* Effect.orElseSucceed(device.state as Effect.Effect<DeviceState | null, DeviceError>, () => null);
      // A connection that broke off is made anew by whatever comes next: the device itself may be there still.
      if (error.errno === "EPIPE") yield* close;
      const cause = new GodwitError({ code: "device-failed", actor: "vfio-agent", side, step, reason: error.message });
      return yield* Effect.fail<Failed>({ state, failure: fromError(cause) });
    });

  const open = Effect.gen(function* () {
    yield* close;
    opened = yield* Scope.fork(scope);
    device = null;
    device = yield* openDevice(spec).pipe(Effect.provideService(Scope.Scope, opened));
    return device;
  }).pipe(Effect.catch(explain("open the device")));

  const use: DeviceAccess["use"] = (step, work) =>
    one.withPermit(
      Effect.suspend(() => (device === null ? Effect.flatMap(open, work) : work(device))).pipe(
        Effect.catch((error) => ("failure" in error ? Effect.fail(error) : explain(step)(error))),
      ),
    );

  const arc: DeviceAccess["arc"] = (to) =>
    use(`set ${to}`, (target) =>
      Effect.gen(function* () {
        const from = yield* target.state;
        const startedAt = performance.now();
        const at = hostMicros();
        yield* Effect.ensuring(
          target.setState(to),
          Effect.sync(() => latencies.measured(spec.name, from, to, performance.now() - startedAt)),
        );
        return { ms: performance.now() - startedAt, at };
      }),
    );
  return { name: spec.name, open: one.withPermit(open), use, close: one.withPermit(close), arc };
});
