/** The yardstick of the direct lane: TCP from process to process with the copies that every migration makes: memory, buffer, socket, buffer, memory. */
import { fork } from "node:child_process";
import { once } from "node:events";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

export interface BareDirectOptions {
  readonly senders: number;
  /** A file in a tmpfs, as long as `bytes`, with what is sent; and one that is written. */
  readonly from: string;
  readonly to: string;
  readonly bytes: number;
}

const start = (file: string, args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => fork(new URL(file, import.meta.url), args)),
    (child) =>
      Effect.promise(async () => {
        const gone = once(child, "exit");
        if (child.kill("SIGKILL")) await gone;
      }),
  );

/** Moves everything once: seconds from the start signal until the last byte is in its place. */
export const openBareDirect = Effect.fnUntraced(function* (
  options: BareDirectOptions,
): Effect.fn.Return<Effect.Effect<number>, never, Scope.Scope> {
  const { senders, from, to, bytes } = options;
  const receiver = yield* start("./direct-receiver.ts", [to, String(bytes)]);
  const [port] = (yield* Effect.promise(() => once(receiver, "message"))) as [number];
  const all = yield* Effect.forEach(
    Array.from({ length: senders }, (_, n) => n),
    (n) => start("./direct-sender.ts", [String(port), from, String((bytes / senders) * n), String(bytes / senders)]),
  );
  yield* Effect.promise(() => Promise.all(all.map((sender) => once(sender, "message"))));
  return Effect.promise(async () => {
    const done = once(receiver, "message");
    const startedMs = performance.now();
    for (const sender of all) sender.send("go");
    await done;
    return (performance.now() - startedMs) / 1000;
  });
});
