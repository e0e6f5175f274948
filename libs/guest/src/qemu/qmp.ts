import { randomUUID } from "node:crypto";
import { createConnection, type Socket } from "node:net";
import { errnoOf, type PeerCredentials } from "@godwit/host";
import * as Cause from "effect/Cause";
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import * as Queue from "effect/Queue";
import * as Schema from "effect/Schema";
import type * as Scope from "effect/Scope";
import * as Semaphore from "effect/Semaphore";
import { peerOf } from "./peer.ts";
import { QmpError } from "./qmp-error.ts";
import { lineSplitter, parseQmpMessage, QMP_LINE_BYTES_MAX, type QmpMessage, type QmpVersion } from "./qmp-message.ts";

/**
 * A client of QEMU's monitor (QMP) over its unix socket.
 *
 *     QEMU                          godwit
 *      | --- {"QMP": version} ------> |   greeting; silence instead: somebody else is connected
 *      | <-- qmp_capabilities, id --- |
 *      | --- {"return": {}, id} ----> |   now commands, one at a time
 *      | --- {"event": ...} --------> |   at any moment
 *      | --- {"return": ..., id} ---> |   at any moment: the answer to a command whose client has gone
 *
 * Trap: a monitor serves one client at a time. Hold it in the scope of the work, no longer.
 */
export interface Qmp {
  readonly socketPath: string;
  readonly version: QmpVersion;
  /** QEMU's process as the kernel names it. `pid` is 0 when it is not visible here, and that of the supervisor where one handed the socket down. */
  readonly peer: PeerCredentials;
  /** Runs a command and reads its answer with `answer`. `args` are QMP's own names. */
  readonly execute: <A>(
    command: string,
    answer: Schema.ConstraintDecoder<A>,
    args?: Readonly<Record<string, unknown>>,
  ) => Effect.Effect<A, QmpError>;
  /** Events of one name from now on. Fails with `closed` when the connection ends, with `garbage` when nobody took them in time. */
  readonly events: (name: string) => Effect.Effect<Queue.Dequeue<unknown, QmpError>, never, Scope.Scope>;
  /** Returns when the connection has ended, whoever ended it. */
  readonly ended: Effect.Effect<void>;
}

export interface QmpOptions {
  /** How long to wait for the greeting, and for the answer to a command. */
  readonly timeout?: Duration.Input;
}

/** How long a monitor may take to answer. QEMU answers in under a millisecond, but its main loop may be held by a slow disk. */
export const QMP_TIMEOUT: Duration.Input = "10 seconds";
/** Unread events one subscriber may have: a migration emits about ten. */
const EVENTS_PENDING_MAX = 256;

/** Connects to a monitor and opens it for commands; the scope's end closes the connection. */
export const connectQmp = (socketPath: string, options: QmpOptions = {}): Effect.Effect<Qmp, QmpError, Scope.Scope> =>
  Effect.gen(function* () {
    const timeout = options.timeout ?? QMP_TIMEOUT;
    const socket = yield* Effect.acquireRelease(openSocket(socketPath), (socket) =>
      Effect.sync(() => socket.destroy()),
    );
    const peer = yield* Effect.try({
      try: () => peerOf(socket),
      catch: (cause) => failure("unreachable", socketPath, "connect", String(cause)),
    });
    const conversation = converse(socket, socketPath);
    const version = yield* conversation.greeting.pipe(
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () =>
          Effect.fail(
            failure("busy", socketPath, "connect", "no greeting came; another client is connected to this monitor"),
          ),
      }),
    );
    // One command at a time: QEMU executes them in order anyway, and so their number needs no limit.
    const turn = yield* Semaphore.make(1);
    const execute: Qmp["execute"] = (command, answer, args) =>
      turn.withPermit(
        conversation.execute(command, args).pipe(
          Effect.timeoutOrElse({
            duration: timeout,
            orElse: () => Effect.fail(failure("timeout", socketPath, command, "no answer in time")),
          }),
          Effect.flatMap((value) =>
            Schema.decodeUnknownEffect(answer)(value).pipe(
              Effect.mapError((error) =>
                failure("garbage", socketPath, command, `an answer of another shape: ${error.message}`),
              ),
            ),
          ),
        ),
      );
    yield* execute("qmp_capabilities", Schema.Unknown).pipe(Effect.catchIf(isNegotiatedAlready, () => Effect.void));
    return { socketPath, version, peer, execute, events: conversation.events, ended: conversation.ended };
  });

/** A client before this one had said it, and was gone before QEMU came to it: it counted for this connection then. */
const isNegotiatedAlready = ({ kind, reason }: QmpError): boolean =>
  kind === "refused" && reason.includes("negotiation is already complete");

/** Whether nothing listens on a monitor's socket. Any other trouble with it will be met, and told, by whoever uses it. */
export const isQmpAbsent = (socketPath: string): Effect.Effect<boolean> =>
  Effect.scoped(connectQmp(socketPath)).pipe(
    Effect.as(false),
    Effect.catch((error) => Effect.succeed(error.kind === "absent")),
  );

const failure = (kind: QmpError["kind"], socket: string, operation: string, reason: string): QmpError =>
  new QmpError({ kind, socket, operation, reason });

const openSocket = (path: string): Effect.Effect<Socket, QmpError> =>
  Effect.callback((resume) => {
    const socket = createConnection(path);
    const refuse = (error: Error) => {
      const kind = ["ENOENT", "ECONNREFUSED"].includes(errnoOf(error)) ? "absent" : "unreachable";
      resume(Effect.fail(failure(kind, path, "connect", error.message)));
    };
    // Stays on: an error between this and the conversation would otherwise end the process. `converse` sees it as `destroyed`.
    socket.on("error", refuse);
    socket.once("connect", () => {
      // Until the conversation listens; what arrives before stays in the socket.
      socket.pause();
      resume(Effect.succeed(socket));
    });
    return Effect.sync(() => socket.destroy());
  });

type Settle = (result: Effect.Effect<unknown, QmpError>) => void;

/** The listening side of one connection: hands answers to whoever asked, events to their subscribers, and the end to all of them. */
const converse = (socket: Socket, path: string) => {
  const waiting = new Map<unknown, { readonly command: string; readonly settle: Settle }>();
  const subscribers = new Set<{ readonly name: string; readonly queue: Queue.Queue<unknown, QmpError> }>();
  const endListeners = new Set<() => void>();
  // Unlike those of any other connection: QEMU gives the answer to a command that was running when its client left to the next client.
  const conversation = randomUUID();
  let commands = 0;
  let greeting: QmpVersion | null = null;
  let greeted: ((result: Effect.Effect<QmpVersion, QmpError>) => void) | null = null;
  /** Why the connection ended; null while it lives. */
  let end: QmpError | null = null;

  const finish = (error: QmpError): void => {
    if (end !== null) return;
    end = error;
    socket.destroy();
    greeted?.(Effect.fail(error));
    for (const { settle } of waiting.values()) settle(Effect.fail(error));
    waiting.clear();
    for (const { queue } of subscribers) Queue.failCauseUnsafe(queue, Cause.fail(error));
    subscribers.clear();
    for (const listener of endListeners) listener();
    endListeners.clear();
  };
  const garbage = (reason: string): void => finish(failure("garbage", path, "read", reason));

  const receive = (message: QmpMessage): void => {
    switch (message.kind) {
      case "greeting":
        greeting = message.version;
        greeted?.(Effect.succeed(message.version));
        return;
      case "event":
        for (const subscriber of subscribers) {
          if (subscriber.name !== message.name || Queue.offerUnsafe(subscriber.queue, message.data)) continue;
          subscribers.delete(subscriber);
          const late = failure(
            "garbage",
            path,
            message.name,
            `more than ${EVENTS_PENDING_MAX} events are waiting to be read`,
          );
          Queue.failCauseUnsafe(subscriber.queue, Cause.fail(late));
        }
        return;
      case "return":
        settle(message.id, () => Effect.succeed(message.value));
        return;
      case "error": {
        const { id, errorClass, text } = message;
        if (id === undefined) {
          garbage(`QEMU could not read a command: ${text}`);
          return;
        }
        settle(id, (operation) =>
          Effect.fail(new QmpError({ kind: "refused", socket: path, operation, reason: text, errorClass })),
        );
      }
    }
  };
  const settle = (id: unknown, result: (command: string) => Effect.Effect<unknown, QmpError>): void => {
    const entry = waiting.get(id);
    // Nobody waits for the answer to a command that timed out, nor for that to a command of the client before.
    if (entry === undefined) return;
    waiting.delete(id);
    entry.settle(result(entry.command));
  };

  const splitter = lineSplitter(QMP_LINE_BYTES_MAX);
  socket.on("data", (chunk) => {
    const lines = splitter.push(chunk as Buffer);
    if (lines === null) return garbage(`a line of more than ${QMP_LINE_BYTES_MAX} bytes`);
    for (const line of lines) {
      const message = parseQmpMessage(line);
      if (message === null) return garbage(`no QMP message: ${JSON.stringify(line.slice(0, 200))}`);
      receive(message);
    }
  });
  socket.on("error", (error) => finish(failure("closed", path, "read", error.message)));
  socket.on("close", () => finish(failure("closed", path, "read", "QEMU ended the connection")));
  if (socket.destroyed) finish(failure("closed", path, "connect", "QEMU ended the connection"));
  else socket.resume();

  return {
    greeting: Effect.callback<QmpVersion, QmpError>((resume) => {
      if (end !== null) return resume(Effect.fail(end));
      if (greeting !== null) return resume(Effect.succeed(greeting));
      greeted = resume;
    }),
    execute: (command: string, args: Readonly<Record<string, unknown>> = {}): Effect.Effect<unknown, QmpError> =>
      Effect.callback((resume) => {
        if (end !== null) return resume(Effect.fail(end));
        const id = `${conversation}/${++commands}`;
        waiting.set(id, { command, settle: resume });
        socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
        return Effect.sync(() => waiting.delete(id));
      }),
    events: (name: string): Effect.Effect<Queue.Dequeue<unknown, QmpError>, never, Scope.Scope> =>
      Effect.acquireRelease(
        Effect.gen(function* () {
          const queue = yield* Queue.dropping<unknown, QmpError>(EVENTS_PENDING_MAX);
          const subscriber = { name, queue };
          if (end === null) subscribers.add(subscriber);
          else Queue.failCauseUnsafe(queue, Cause.fail(end));
          return subscriber;
        }),
        (subscriber) => {
          subscribers.delete(subscriber);
          return Queue.shutdown(subscriber.queue);
        },
      ).pipe(Effect.map(({ queue }) => queue)),
    ended: Effect.callback<void>((resume) => {
      const listener = () => resume(Effect.void);
      if (end !== null) return listener();
      endListeners.add(listener);
      return Effect.sync(() => endListeners.delete(listener));
    }),
  };
};
