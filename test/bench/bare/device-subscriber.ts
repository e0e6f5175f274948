// A process that has simulated devices, into which it writes what comes for them by plain nats.js. Arguments: URL, devices, state bytes, directory.
import { openSimulated, startSimulated } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import { connectBare } from "./client.ts";
import { acknowledgementOf, DEVICES, dataOf, numberOf } from "./subjects.ts";

const [url = "", count = "", stateBytes = "", directory = ""] = process.argv.slice(2);

const main = Effect.gen(function* () {
  const waiting = Array.from({ length: Number(count) }, (): Uint8Array[] => []);
  const wakes = waiting.map(() => (): void => undefined);
  const nats = yield* Effect.promise(() =>
    connectBare("nats.js", url, (subject, payload) => {
      const number = Number(numberOf(subject));
      waiting[number]!.push(payload);
      wakes[number]!();
    }),
  );
  const take = Effect.fnUntraced(function* (number: number) {
    const { spec } = yield* startSimulated(
      { name: `destination${number}`, role: "incoming", stateBytes: Number(stateBytes) },
      directory,
    );
    const device = yield* openSimulated(spec);
    yield* device.setState("RESUMING");
    const writing = Effect.gen(function* () {
      while (true) {
        const payload = waiting[number]!.shift();
        if (payload === undefined) {
          yield* Effect.callback<void>((resume) => {
            wakes[number] = () => resume(Effect.void);
          });
          continue;
        }
        yield* device.write(payload);
        nats.publish(acknowledgementOf(DEVICES, String(number)), new Uint8Array(0));
      }
    });
    yield* Effect.forkScoped(Effect.orDie(writing));
  });
  yield* Effect.forEach(waiting.keys(), take, { discard: true });
  nats.subscribe(dataOf(DEVICES, "*"));
  yield* Effect.promise(() => nats.flush());
  process.send?.("ready");
  return yield* Effect.never;
});
process.once("disconnect", () => process.exit(0));
await Effect.runPromise(Effect.scoped(main));
