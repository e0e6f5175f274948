// A process that has a simulated device, and publishes its state by plain nats.js as its window allows. Arguments: URL, number, state bytes, directory.
import { openSimulated, startSimulated } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import { connectBare } from "./client.ts";
import { MESSAGE_PAYLOAD_BYTES, WINDOW_BYTES } from "./sizes.ts";
import { acknowledgementOf, DEVICES, dataOf, doneOf, goOf } from "./subjects.ts";

const [url = "", number = "", stateBytes = "", directory = ""] = process.argv.slice(2);
const WINDOW = WINDOW_BYTES / MESSAGE_PAYLOAD_BYTES;

const main = Effect.gen(function* () {
  const device = yield* openSimulated(
    (yield* startSimulated(
      { name: `source${number}`, stateBytes: Number(stateBytes), seed: Number(number) + 1 },
      directory,
    )).spec,
  );
  yield* device.setState("PRE_COPY");
  let unacknowledged = 0;
  let wake = (): void => undefined;
  const nats = yield* Effect.promise(() =>
    connectBare("nats.js", url, (subject) => {
      if (subject === acknowledgementOf(DEVICES, number)) unacknowledged--;
      wake();
    }),
  );
  nats.subscribe(acknowledgementOf(DEVICES, number));
  nats.subscribe(goOf(DEVICES));
  yield* Effect.promise(() => nats.flush());
  const news = Effect.callback<void>((resume) => {
    wake = () => resume(Effect.void);
  });
  process.send?.("ready");
  yield* news;

  // What was published may not be written to before its turn has ended; a window later it has long left.
  const rooms = Array.from({ length: WINDOW + 1 }, () => new Uint8Array(MESSAGE_PAYLOAD_BYTES));
  let messages = 0;
  /** Sends what the device gives in this state, in messages that are full but for the last. */
  const sendAll = Effect.gen(function* () {
    for (let isMore = true; isMore; ) {
      const room = rooms[messages % rooms.length]!;
      let filled = 0;
      while (isMore && filled < room.length) {
        const bytes = yield* device.read(room.subarray(filled));
        isMore = bytes > 0;
        filled += bytes;
      }
      if (filled === 0) return;
      nats.publish(dataOf(DEVICES, number), room.subarray(0, filled));
      messages++;
      unacknowledged++;
      while (unacknowledged >= WINDOW) yield* news;
    }
  });
  yield* sendAll;
  yield* device.setState("STOP_COPY");
  yield* sendAll;
  while (unacknowledged > 0) yield* news;
  nats.publish(doneOf(DEVICES, number), new Uint8Array(0));
  yield* Effect.promise(() => nats.flush());
  return yield* Effect.never;
});
process.once("disconnect", () => process.exit(0));
await Effect.runPromise(Effect.scoped(main));
