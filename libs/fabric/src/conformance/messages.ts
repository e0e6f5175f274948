import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import { expect, it } from "vitest";
import type { CurrentWorld } from "../fabric.conformance.ts";
import type { Message, Subscription } from "../fabric.ts";

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
export const text = (data: Uint8Array): string => new TextDecoder().decode(data);

/** Takes until there are `count`. */
export const take = Effect.fnUntraced(function* (subscription: Subscription, count: number) {
  const taken: Array<Message> = [];
  while (taken.length < count) taken.push(...(yield* subscription.takeAll));
  return taken;
});

export function messageConformance(world: CurrentWorld): void {
  it("every subscriber gets what is published on its subject, and nothing else", () =>
    world().run(
      Effect.gen(function* () {
        const [alice, bob] = [yield* world().join("alice"), yield* world().join("bob")];
        const first = yield* alice.subscribe("talk.one", { capacity: 8 });
        const second = yield* bob.subscribe("talk.one", { capacity: 8 });
        alice.publish("talk.two", bytes("not for them"));
        expect(alice.publish("talk.one", bytes("hello"))).toBe(true);
        for (const subscription of [first, second]) {
          const [message] = yield* take(subscription, 1);
          expect(message?.subject).toBe("talk.one");
          expect(text(message?.data ?? bytes(""))).toBe("hello");
        }
      }),
    ));

  it("a round trip to the server succeeds on both connections", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        yield* fabric.roundTrip("control");
        yield* fabric.roundTrip("bulk");
      }),
    ));

  it("* stands for one token, > for one or more", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        const one = yield* fabric.subscribe("wild.*.end", { capacity: 8 });
        const rest = yield* fabric.subscribe("wild.>", { capacity: 8 });
        for (const subject of ["wild", "wild.a", "wild.a.end", "wild.a.b.end", "tame.a.end"]) {
          fabric.publish(subject, bytes(""));
        }
        fabric.publish("wild.last.end", bytes(""));
        const subjects = (messages: ReadonlyArray<Message>) => messages.map((message) => message.subject);
        expect(subjects(yield* take(rest, 4))).toEqual(["wild.a", "wild.a.end", "wild.a.b.end", "wild.last.end"]);
        expect(subjects(yield* take(one, 2))).toEqual(["wild.a.end", "wild.last.end"]);
      }),
    ));

  for (const plane of ["control", "bulk"] as const) {
    it(`messages of one publisher arrive in order on the ${plane} plane`, () =>
      world().run(
        Effect.gen(function* () {
          const count = 5_000;
          const [alice, bob] = [yield* world().join("alice"), yield* world().join("bob")];
          const subscription = yield* bob.subscribe("count.*", { capacity: count, plane });
          for (let i = 0; i < count; i++) alice.publish(`count.${i % 7}`, bytes(String(i)), plane);
          const numbers = (yield* take(subscription, count)).map((message) => Number(text(message.data)));
          expect(numbers).toEqual(Array.from({ length: count }, (_, i) => i));
          expect(subscription.dropped()).toBe(0);
        }),
      ));
  }

  it("a subscription holds its capacity; what comes on top is dropped and counted", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        const small = yield* fabric.subscribe("flood", { capacity: 16 });
        const large = yield* fabric.subscribe("flood", { capacity: 1_000 });
        for (let i = 0; i < 100; i++) fabric.publish("flood", bytes(String(i)));
        yield* take(large, 100);
        const kept = yield* small.takeAll;
        expect(kept.map((message) => text(message.data))).toEqual(Array.from({ length: 16 }, (_, i) => String(i)));
        expect(small.dropped()).toBe(84);
        expect(fabric.counters().messagesDropped).toBe(84);
        // It goes on with what comes after.
        fabric.publish("flood", bytes("later"));
        expect(text((yield* take(small, 1))[0]?.data ?? bytes(""))).toBe("later");
      }),
    ));

  it("a message that is too large is dropped here, and the fabric goes on", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        const subscription = yield* fabric.subscribe("size", { capacity: 4 });
        expect(fabric.publish("size", new Uint8Array(fabric.maxPayloadBytes + 1))).toBe(false);
        expect(fabric.counters().publishesDropped).toBe(1);
        expect(fabric.publish("size", new Uint8Array(fabric.maxPayloadBytes))).toBe(true);
        const [message] = yield* take(subscription, 1);
        expect(message?.data.length).toBe(fabric.maxPayloadBytes);
      }),
    ));

  it("a listener gets each message as it arrives, may answer at once, and goes on after it has thrown", () =>
    world().run(
      Effect.gen(function* () {
        const [alice, bob] = [yield* world().join("alice"), yield* world().join("bob")];
        const answers = yield* alice.subscribe("heard.*", { capacity: 8 });
        const scope = yield* Scope.make();
        const listening = bob.listen("say.*", ({ subject, data }) => {
          if (subject === "say.nonsense") throw new Error("nonsense");
          bob.publish(`heard.${subject.slice("say.".length)}`, data);
        });
        yield* listening.pipe(Scope.provide(scope));
        for (const subject of ["say.one", "say.nonsense", "say.two"]) alice.publish(subject, bytes(subject));
        const heard = yield* take(answers, 2);
        expect(heard.map(({ subject, data }) => `${subject} ${text(data)}`)).toEqual([
          "heard.one say.one",
          "heard.two say.two",
        ]);
        expect(bob.counters().callbackErrors).toBe(1);
        yield* Scope.close(scope, Exit.void);
        alice.publish("say.three", bytes("anyone?"));
        alice.publish("heard.by-nobody-else", bytes(""));
        expect((yield* take(answers, 1)).map(({ subject }) => subject)).toEqual(["heard.by-nobody-else"]);
        const late = yield* answers.takeAll.pipe(Effect.timeoutOption("10 millis"));
        expect(late._tag).toBe("None");
      }),
    ));

  it("a subscription ends with its scope", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        const scope = yield* Scope.make();
        const ended = yield* fabric.subscribe("end", { capacity: 4 }).pipe(Scope.provide(scope));
        const lasting = yield* fabric.subscribe("end", { capacity: 4 });
        yield* Scope.close(scope, Exit.void);
        fabric.publish("end", bytes("anyone?"));
        yield* take(lasting, 1);
        const late = yield* ended.takeAll.pipe(Effect.timeoutOption("10 millis"));
        expect(late._tag).toBe("None");
      }),
    ));
}
