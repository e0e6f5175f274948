import { randomFillSync } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";
import * as Deferred from "effect/Deferred";
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

  it("is read into the memory of one that was let go of, when both are long", () =>
    run(
      Effect.gen(function* () {
        const fabric = yield* joinNats(nats.server.url, "alice");
        const subscription = yield* fabric.subscribe("long", { capacity: 1, plane: "bulk" });
        const receive = Effect.gen(function* () {
          fabric.publish("long", new Uint8Array(262_144), "bulk");
          return (yield* take(subscription, 1))[0]!;
        });
        const [first, second] = [yield* receive, yield* receive];
        expect(second.data.buffer).not.toBe(first.data.buffer);
        letGo(first.data);
        expect((yield* receive).data.buffer).toBe(first.data.buffer);
      }),
    ));

  it("is let go of in that turn when it is longer than any packet", () =>
    run(
      Effect.gen(function* () {
        const fabric = yield* joinNats(nats.server.url, "alice");
        const subscription = yield* fabric.subscribe("long", { capacity: 1, plane: "bulk" });
        fabric.publish("long", new Uint8Array(1_000_000), "bulk");
        const [message] = yield* take(subscription, 1);
        letGo(message!.data);
        yield* Effect.promise(() => nextTurn());
        expect(message!.data.length).toBe(0);
      }),
    ));

  it("may be let go of within its arrival, whatever its length, and the next ones come whole", () =>
    run(
      Effect.gen(function* () {
        const [alice, bob] = [yield* joinNats(nats.server.url, "alice"), yield* joinNats(nats.server.url, "bob")];
        const lengths = LENGTHS.flatMap((length) => [length, 70_000, 200_000]);
        const came: number[] = [];
        const all = yield* Deferred.make<void>();
        yield* bob.listen("arrival", ({ data }) => {
          came.push(data.length);
          letGo(data);
          if (came.length === lengths.length) Deferred.doneUnsafe(all, Effect.void);
        });
        for (const length of lengths) alice.publish("arrival", new Uint8Array(length));
        yield* Deferred.await(all);
        expect(came).toEqual(lengths);
      }),
    ));

  it("is sent from where it stands, in its order among others, and is told when it has left", () =>
    run(
      Effect.gen(function* () {
        const [alice, bob] = [yield* joinNats(nats.server.url, "alice"), yield* joinNats(nats.server.url, "bob")];
        const subscription = yield* bob.subscribe("place.*", { capacity: 100, plane: "bulk" });
        const lengths = [10, 300_000, 20, 40_000, 30, 1_048_576, 0];
        let left = 0;
        for (const [number, length] of lengths.entries()) {
          const data = new Uint8Array(length).fill(number);
          const isSent = alice.publishInPlace(`place.${number}`, data, "bulk", () => {
            left++;
            data.fill(0xff);
          });
          expect(isSent).toBe(true);
        }
        const messages = yield* take(subscription, lengths.length);
        expect(messages.map(({ subject, data }) => [subject, data.length, new Set(data)])).toEqual(
          lengths.map((length, number) => [`place.${number}`, length, new Set(length === 0 ? [] : [number])]),
        );
        expect(left).toBe(lengths.length);
      }),
    ));

  it("is told at once when it was dropped: too long, no subject", () =>
    run(
      Effect.gen(function* () {
        const alice = yield* joinNats(nats.server.url, "alice");
        let left = 0;
        const drop = (subject: string, bytes: number): boolean =>
          alice.publishInPlace(subject, new Uint8Array(bytes), "bulk", () => left++);
        expect([drop("long", 2 * 1024 ** 2), drop("no subject", 100_000), left]).toEqual([false, false, 2]);
        expect(alice.counters().publishesDropped).toBe(2);
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
