import type * as Clock from "effect/Clock";
import * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import type { SimNetwork } from "./simulation/index.ts";

const NANOS_PER_MS = 1_000_000;

/** The network's virtual time as Effect's clock; sleeps are timers of `actor`, or of nobody, when it is null. */
export function actorClock(network: SimNetwork, actor: string | null): Clock.Clock {
  const millis = () => network.now();
  const nanos = () => BigInt(Math.round(network.now() * NANOS_PER_MS));
  return {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep: (duration) =>
      Effect.callback<void>((resume) => {
        const ms = Duration.toMillis(duration);
        const wake = () => resume(Effect.void);
        // An endless sleep is no event.
        const cancel = !Number.isFinite(ms)
          ? () => {}
          : actor === null
            ? network.after(ms, wake)
            : network.timer(actor, ms, wake);
        return Effect.sync(cancel);
      }),
  };
}
