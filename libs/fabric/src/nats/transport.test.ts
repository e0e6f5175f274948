import { randomFillSync } from "node:crypto";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { take } from "../conformance/messages.ts";
import { joinNats, run, startTestNats } from "../conformance/nats-world.ts";
import { letGo } from "../own-memory.ts";

/** Around what one read of a socket holds (64 KiB), and up to the largest a server takes. */
const LENGTHS = [0, 1, 100, 65_000, 65_536, 65_537, 131_072, 262_224, 1_048_576];

describe("what goes over a connection", () => {
  let nats: Awaited<ReturnType<typeof startTestNats>>;
  beforeAll(async () => {
    nats = await startTestNats();
  });
  afterAll(() => nats.close());

  it("arrives as it was sent, short and long in turn, also when the others were let go of", () =>
    run(
      Effect.gen(function* () {
        const [alice, bob] = [yield* joinNats(nats.server.url, "alice"), yield* joinNats(nats.server.url, "bob")];
        const all = LENGTHS.flatMap((length) => [length, 10]).map((length) => randomFillSync(new Uint8Array(length)));
        const subscription = yield* bob.subscribe("mixed", { capacity: all.length, plane: "bulk" });
        for (const data of all) alice.publish("mixed", data, "bulk");
        const messages = yield* take(subscription, all.length);
        messages.forEach(({ data }, index) => {
          expect(Buffer.compare(data, all[index]!)).toBe(0);
          letGo(data);
        });
      }),
    ));

  it("is let go of at once when it is long", () =>
    run(
      Effect.gen(function* () {
        const fabric = yield* joinNats(nats.server.url, "alice");
        const subscription = yield* fabric.subscribe("long", { capacity: 1, plane: "bulk" });
        fabric.publish("long", new Uint8Array(262_144), "bulk");
        const [message] = yield* take(subscription, 1);
        letGo(message!.data);
        expect(message!.data.length).toBe(0);
      }),
    ));

  it("stays the publisher's own, to be sent again", () =>
    run(
      Effect.gen(function* () {
        const fabric = yield* joinNats(nats.server.url, "alice");
        const subscription = yield* fabric.subscribe("again", { capacity: 8, plane: "bulk" });
        const data = randomFillSync(new Uint8Array(500_000));
        for (let round = 0; round < 8; round++) {
          fabric.publish("again", data, "bulk");
          const [message] = yield* take(subscription, 1);
          expect(Buffer.compare(message!.data, data)).toBe(0);
        }
      }),
    ));
});
