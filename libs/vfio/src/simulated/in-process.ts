/** The simulated device within this process, in Effect's time: for tests, and wherever no process of its own is wanted. */
import * as Clock from "effect/Clock";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import type * as Scope from "effect/Scope";
import * as Semaphore from "effect/Semaphore";
import { DeviceError, type VfioDevice } from "../device.ts";
import { DeviceFailure } from "./failure.ts";
import { DMA_PERIOD_MS, NEVER, type Operation, type SimulatedDiagnosis, SimulatedModel } from "./model.ts";
import type { SimulatedSpec } from "./spec.ts";

/** A simulated device that is open; it tells more than the migration wants to know. */
export interface SimulatedDevice extends VfioDevice {
  readonly diagnosis: Effect.Effect<SimulatedDiagnosis, DeviceError>;
}

/** The device itself, which outlives whoever has opened it. */
export interface SimulatedHardware {
  /** One at a time: who opens it takes it from whoever had it before, whose operations then fail with EPIPE. */
  readonly open: Effect.Effect<SimulatedDevice, DeviceError, Scope.Scope>;
}

/** Plugs a device in, until the scope ends. */
export const plugSimulated: (spec: SimulatedSpec) => Effect.Effect<SimulatedHardware, never, Scope.Scope> =
  Effect.fnUntraced(function* (spec) {
    const clock = yield* Clock.Clock;
    const model = yield* Effect.acquireRelease(
      Effect.sync(() => new SimulatedModel(spec, () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6)),
      (device) => Effect.sync(() => device.close()),
    );
    if (spec.dma !== null) {
      yield* Effect.sync(() => model.account()).pipe(
        Effect.repeat(Schedule.spaced(DMA_PERIOD_MS)),
        Effect.forkScoped({ startImmediately: true }),
      );
    }
    // What is asked while the device is busy waits for it, also the state.
    const turn = yield* Semaphore.make(1);
    const holder: Holder = { current: null };
    const open = Effect.acquireRelease(
      Effect.sync(() => {
        const token = {};
        holder.current = token;
        return { token, device: deviceOf(spec.name, model, turn, () => holder.current === token) };
      }),
      ({ token }) =>
        Effect.sync(() => {
          if (holder.current === token) holder.current = null;
        }),
    );
    return { open: Effect.map(open, ({ device }) => device) };
  });

interface Holder {
  current: object | null;
}

const deviceOf = (
  name: string,
  model: SimulatedModel,
  turn: Semaphore.Semaphore,
  isHolder: () => boolean,
): SimulatedDevice => {
  const refused = (operation: string, { errno, message }: DeviceFailure): DeviceError =>
    new DeviceError({ device: name, operation, errno, reason: message });
  const perform = <A>(operation: string, start: () => Operation<A>): Effect.Effect<A, DeviceError> =>
    Effect.suspend(() =>
      isHolder() ? run(start()) : Effect.fail(new DeviceFailure("EPIPE", "the device was closed, or taken by another")),
    ).pipe(
      turn.withPermit,
      // Out of turn: what is asked later is answered.
      Effect.catch((failure) => (failure === HANGS ? Effect.never : Effect.fail(refused(operation, failure)))),
    );
  const ask = <A>(operation: string, answer: () => A): Effect.Effect<A, DeviceError> =>
    // biome-ignore lint/correctness/useYield: an operation that takes no time
    perform(operation, function* () {
      return answer();
    });
  const { config, dma } = model;
  return {
    name,
    provider: "simulated",
    features: model.features,
    state: ask("get state", () => model.state),
    setState: (to) => perform(`set ${to}`, () => model.setState(to)),
    reset: perform("reset", () => model.reset()),
    read: (into) => perform("read", () => model.read(into)),
    write: (bytes) => perform("write", () => model.write(bytes)),
    precopyInfo: perform("precopy info", () => model.precopyInfo()),
    stopCopyBytes: ask("stop-copy size", () => model.stopCopyBytes()),
    readConfig: ask("read config", () => config.read()),
    writeConfig: (bytes) => ask("write config", () => config.write(bytes)),
    dmaLogging:
      dma === null || !model.logsDma
        ? null
        : {
            start: (pageBytes, ranges) => ask("start DMA logging", () => dma.log.start(pageBytes, ranges)),
            report: (range, pageBytes) =>
              ask("report DMA logging", () => {
                model.account();
                return dma.log.report(range, pageBytes);
              }),
            stop: ask("stop DMA logging", () => dma.log.stop()),
          },
    diagnosis: ask("diagnosis", () => model.diagnosis()),
  };
};

/** The failure of an operation that is never answered. */
const HANGS = new DeviceFailure("ETIMEDOUT", "it never answers");

const run = <A>(operation: Operation<A>): Effect.Effect<A, DeviceFailure> =>
  Effect.flatMap(
    Effect.try({
      try: () => operation.next(),
      catch: (cause) => {
        if (cause instanceof DeviceFailure) return cause;
        throw cause;
      },
    }),
    (step) => {
      if (step.done === true) return Effect.succeed(step.value);
      return step.value === NEVER ? Effect.fail(HANGS) : Effect.andThen(Effect.sleep(step.value), run(operation));
    },
  );
