import { GodwitError } from "@godwit/protocol";
import * as Deferred from "effect/Deferred";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import { expect, it } from "vitest";
import type { CurrentWorld } from "../fabric.conformance.ts";
import type { Endpoint } from "../fabric.ts";
import { bytes, take, text } from "./messages.ts";

const service = (name: string, ...endpoints: ReadonlyArray<Endpoint>) => ({
  name,
  version: "1.0.0",
  description: "of the conformance suite",
  endpoints,
});
const answer =
  (word: string): Endpoint["handle"] =>
  (data) =>
    Effect.succeed(bytes(`${word} ${text(data)}`));
const PATIENT = { timeoutMs: 5_000 };

export function requestConformance(world: CurrentWorld): void {
  it("a request is answered", () =>
    world().run(
      Effect.gen(function* () {
        const [alice, bob] = [yield* world().join("alice"), yield* world().join("bob")];
        yield* alice.serve(service("greeter", { name: "greet", subject: "ask.greet", handle: answer("hello") }));
        expect(text(yield* bob.request("ask.greet", bytes("bob"), PATIENT))).toBe("hello bob");
      }),
    ));

  it("a request to one of many subjects of an endpoint is handled with the subject that it came by", () =>
    world().run(
      Effect.gen(function* () {
        const [alice, bob] = [yield* world().join("alice"), yield* world().join("bob")];
        const handle: Endpoint["handle"] = (data, subject) => Effect.succeed(bytes(`${text(data)} of ${subject}`));
        yield* alice.serve(service("many", { name: "many", subject: "ask.*.end", handle }));
        expect(text(yield* bob.request("ask.bob.end", bytes("word"), PATIENT))).toBe("word of ask.bob.end");
      }),
    ));

  it("a request that nobody serves fails at once, and so does one whose service has ended", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        const ask = Effect.flip(fabric.request("ask.nobody", bytes(""), PATIENT));
        expect((yield* ask)._tag).toBe("NoResponders");
        const scope = yield* Scope.make();
        yield* fabric
          .serve(service("brief", { name: "nobody", subject: "ask.nobody", handle: answer("") }))
          .pipe(Scope.provide(scope));
        yield* fabric.request("ask.nobody", bytes(""), PATIENT);
        yield* Scope.close(scope, Exit.void);
        expect((yield* ask)._tag).toBe("NoResponders");
      }),
    ));

  it("a timeout is an error of its own, and the request may still be executed after it", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        const executed = yield* Deferred.make<string>();
        const handle: Endpoint["handle"] = (data) =>
          Effect.sleep("300 millis").pipe(
            Effect.andThen(Deferred.succeed(executed, text(data))),
            Effect.as(bytes("done")),
          );
        yield* fabric.serve(service("slow", { name: "slow", subject: "ask.slow", handle }));
        const error = yield* Effect.flip(fabric.request("ask.slow", bytes("stop"), { timeoutMs: 50 }));
        expect(error).toMatchObject({ _tag: "RequestTimeout", subject: "ask.slow", timeoutMs: 50 });
        expect(yield* Deferred.await(executed)).toBe("stop");
      }),
    ));

  it("a refusal arrives as the GodwitError it was", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        const refusal = new GodwitError({
          code: "incompatible",
          actor: "loader",
          side: "destination",
          step: "compare RAMBlocks",
          reason: "RAMBlock pc.ram differs\nin two ways",
          differences: [{ what: "pc.ram length", mine: "1024", yours: "2048" }],
        });
        const handle = () => Effect.fail(refusal);
        yield* fabric.serve(service("strict", { name: "strict", subject: "ask.strict", handle }));
        const error = yield* Effect.flip(fabric.request("ask.strict", bytes(""), PATIENT));
        expect(error).toBeInstanceOf(GodwitError);
        expect({ ...error }).toEqual({ ...refusal });
      }),
    ));

  it("a handler that throws or dies answers `internal`, and the actor hears on", () =>
    world().run(
      Effect.gen(function* () {
        const fabric = yield* world().join("alice");
        const subscription = yield* fabric.subscribe("still.there", { capacity: 4 });
        const thrown: Endpoint["handle"] = () => {
          throw new Error("a bug");
        };
        yield* fabric.serve(
          service(
            "buggy",
            { name: "throws", subject: "ask.throws", handle: thrown },
            { name: "dies", subject: "ask.dies", handle: () => Effect.die(new Error("a bug")) },
            { name: "works", subject: "ask.works", handle: answer("still") },
          ),
        );
        for (const subject of ["ask.throws", "ask.dies"]) {
          const error = yield* Effect.flip(fabric.request(subject, bytes("x"), PATIENT));
          expect(error).toMatchObject({ _tag: "GodwitError", code: "internal", reason: "a bug" });
        }
        expect(text(yield* fabric.request("ask.works", bytes("here"), PATIENT))).toBe("still here");
        fabric.publish("still.there", bytes(""));
        yield* take(subscription, 1);
      }),
    ));

  it("replicas that share a queue get each request once between them", () =>
    world().run(
      Effect.gen(function* () {
        const handled = { left: 0, right: 0 };
        for (const side of ["left", "right"] as const) {
          const fabric = yield* world().join(side);
          const handle: Endpoint["handle"] = (data) =>
            Effect.sync(() => {
              handled[side]++;
              return data;
            });
          yield* fabric.serve(service("shared", { name: "shared", subject: "ask.shared", queue: "workers", handle }));
        }
        const asking = yield* world().join("asking");
        const ask = asking.request("ask.shared", bytes("x"), PATIENT);
        yield* Effect.all(
          Array.from({ length: 200 }, () => ask),
          { concurrency: 20 },
        );
        expect(handled.left + handled.right).toBe(200);
        expect(Math.min(handled.left, handled.right)).toBeGreaterThan(20);
      }),
    ));

  it("replicas without a queue each get every request", () =>
    world().run(
      Effect.gen(function* () {
        const reached: Array<Deferred.Deferred<void>> = [];
        for (const side of ["left", "right"]) {
          const fabric = yield* world().join(side);
          const here = yield* Deferred.make<void>();
          reached.push(here);
          const handle: Endpoint["handle"] = (data) => Effect.as(Deferred.succeed(here, undefined), data);
          yield* fabric.serve(service("each", { name: "each", subject: "ask.each", handle }));
        }
        const asking = yield* world().join("asking");
        yield* asking.request("ask.each", bytes("x"), PATIENT);
        for (const here of reached) yield* Deferred.await(here);
      }),
    ));
}
