/** A connection to a QEMU that listens for a migration: bytes of the stream go to it, messages of the return path come back. */
import { createConnection, type Socket } from "node:net";
import { HostError } from "@godwit/host";
import type { GodwitError } from "@godwit/protocol";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { failure } from "./failure.ts";
import { peerOf } from "./peer.ts";
import { makeReturnPathReader, type ReturnMessage } from "./return-path.ts";

export interface StreamConnection {
  /** QEMU's process, which listened itself; 0: not visible from here. */
  readonly pid: number;
  /** In order; what cannot be sent at once waits in memory, which the caller bounds. Throws HostError, EPIPE once the connection has ended. */
  readonly send: (bytes: Uint8Array) => void;
  readonly isOpen: () => boolean;
  /**
   * The first message from now on (not from when the effect runs) for which it holds. Fails with `device-state-failed` when the connection
   * ends before, when QEMU says that it has failed, and when nothing comes in time.
   */
  readonly awaiting: (
    what: string,
    holds: (message: ReturnMessage) => boolean,
    timeout: Duration.Input,
  ) => Effect.Effect<ReturnMessage, GodwitError>;
  /** Returns when the connection has ended, whoever ended it. */
  readonly ended: Effect.Effect<void>;
}

const STEP = "speak with QEMU as the source of a migration";

/** `heard` is called for every message. Closed with the scope. */
export const connectStream = (
  path: string,
  heard: (message: ReturnMessage) => void,
): Effect.Effect<StreamConnection, GodwitError, Scope.Scope> =>
  Effect.acquireRelease(openSocket(path), (socket) => Effect.sync(() => socket.destroy())).pipe(
    Effect.flatMap((socket) =>
      Effect.try({
        try: () => converse(socket, heard),
        catch: (cause) => failure("device-state-failed", STEP, String(cause)),
      }),
    ),
  );

const openSocket = (path: string): Effect.Effect<Socket, GodwitError> =>
  Effect.callback((resume) => {
    const socket = createConnection(path);
    // Stays on: an error before the conversation listens would end the process. The conversation sees it as `destroyed`.
    socket.on("error", (error) => resume(Effect.fail(failure("device-state-failed", STEP, error.message))));
    socket.once("connect", () => {
      socket.pause();
      resume(Effect.succeed(socket));
    });
    return Effect.sync(() => socket.destroy());
  });

interface Waiter {
  readonly holds: (message: ReturnMessage) => boolean;
  readonly settle: (result: ReturnMessage | { readonly reason: string }) => void;
}

const converse = (socket: Socket, heard: (message: ReturnMessage) => void): StreamConnection => {
  const { pid } = peerOf(socket);
  const waiters = new Set<Waiter>();
  const endListeners = new Set<() => void>();
  const reader = makeReturnPathReader();
  /** Why it ended; null while it lives. */
  let end: string | null = null;

  const giveUp = (reason: string): void => {
    for (const { settle } of waiters) settle({ reason });
    waiters.clear();
  };
  const finish = (reason: string): void => {
    if (end !== null) return;
    end = reason;
    socket.destroy();
    giveUp(reason);
    for (const listener of endListeners) listener();
    endListeners.clear();
  };
  const receive = (message: ReturnMessage): void => {
    for (const waiter of waiters) {
      if (!waiter.holds(message)) continue;
      waiters.delete(waiter);
      waiter.settle(message);
    }
    if (message.kind === "shut" && message.error !== 0) giveUp("QEMU says that it could not load what it was sent");
    heard(message);
  };
  socket.on("data", (chunk) => {
    const { messages, malformed } = reader.push(chunk as Buffer);
    for (const message of messages) receive(message);
    if (malformed !== null) finish(`what QEMU says is no return path: ${malformed}`);
  });
  socket.on("error", (error) => finish(error.message));
  socket.on("close", () => finish("QEMU ended the connection"));
  if (socket.destroyed) finish("QEMU ended the connection");
  else socket.resume();

  return {
    pid,
    send: (bytes) => {
      if (end !== null) throw new HostError("write", "EPIPE", { detail: end });
      socket.write(bytes);
    },
    isOpen: () => end === null,
    awaiting: (what, holds, timeout) => {
      const result = new Promise<ReturnMessage | { readonly reason: string }>((settle) => {
        if (end !== null) settle({ reason: end });
        else waiters.add({ holds, settle });
      });
      return Effect.promise(() => result).pipe(
        Effect.flatMap((answer) =>
          "kind" in answer ? Effect.succeed(answer) : Effect.fail(failure("device-state-failed", STEP, answer.reason)),
        ),
        Effect.timeoutOrElse({
          duration: timeout,
          orElse: () => Effect.fail(failure("device-state-failed", STEP, `${what} did not come within ${timeout}`)),
        }),
      );
    },
    ended: Effect.callback<void>((resume) => {
      const listener = () => resume(Effect.void);
      if (end !== null) return listener();
      endListeners.add(listener);
      return Effect.sync(() => endListeners.delete(listener));
    }),
  };
};
