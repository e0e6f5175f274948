/**
 * A vfio-user client's side of one socket: one request at a time, each with its own time limit, and an answer for a server that asks
 * for memory meanwhile.
 *
 *     godwit                              server
 *      | --- request, id 7 ---------------> |
 *      | <-- DMA_WRITE, id 1 -------------- |   in the other direction; refused, there is no memory here
 *      | --- error reply, id 1 -----------> |
 *      | <-- reply, id 7 ------------------ |
 *
 * A request that ran out of time, or that nobody waits for any more, may still be carried out: its reply is passed over when it comes.
 * Connecting anew is the opener's matter.
 */
import { createConnection, type Socket } from "node:net";
import { errnoName, errnoOf } from "@godwit/host";
import * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import * as Semaphore from "effect/Semaphore";
import { DeviceError } from "../device.ts";
import { makeFrameReader } from "./frame-reader.ts";
import { COMMANDS, commandName, encodeError, FRAME_BYTES_MAX, type Header, type Malformed } from "./header.ts";
import type { Reply, Request } from "./message.ts";
import { decodeReply } from "./reply.ts";
import { encodeRequest, encodeWriteHead } from "./request.ts";

export type RequestKind = Request["kind"];
/** The device said no: the name of its errno. */
export interface Refused {
  readonly kind: "refused";
  readonly errno: string;
}
export const isRefused = (value: unknown): value is Refused =>
  typeof value === "object" && value !== null && (value as { readonly kind?: unknown }).kind === "refused";

/** The reason of an error that is a refusal. */
export const REFUSED = "the device refused it";

export interface Question<K extends RequestKind, A> {
  /** What an error will be named after. */
  readonly operation: string;
  readonly request: Extract<Request, { kind: K }>;
  /** Reads the answer while it is there: its bytes are gone afterwards. A reason: the server does not keep to the protocol. */
  readonly read: (reply: Extract<Reply, { kind: K }>) => A | Malformed;
  /** Default: REQUEST_TIMEOUT. */
  readonly timeout?: Duration.Input | undefined;
}

export interface Connection {
  /** A refusal is a DeviceError. */
  readonly ask: <K extends RequestKind, A>(question: Question<K, A>) => Effect.Effect<A, DeviceError>;
  /** A refusal is an answer: for what a server need not have. */
  readonly tryAsk: <K extends RequestKind, A>(question: Question<K, A>) => Effect.Effect<A | Refused, DeviceError>;
}

/** How long a server may take to answer. It answers in under a millisecond; a busy one with a slow disk in a few seconds. */
export const REQUEST_TIMEOUT: Duration.Input = "10 seconds";
/**
 * Requests without an answer that a connection stands. A server that is that far behind does not read any more, and the replies that may
 * still come must be remembered.
 */
const ABANDONED_MAX = 8;
/** Bytes that may wait for a server to read them: the largest frame, and a few thousand refusals. */
const UNREAD_BYTES_MAX = FRAME_BYTES_MAX + 65_536;
/**
 * Bytes of stream in one write to a server that does not say that it takes whole frames. A write of up to 36,544 bytes lies in one buffer
 * of the kernel, and libvfio-user found each of 6,000 such frames whole; of 40 KB it lost one in 2,000, of 256 KB all.
 */
export const SMALL_WRITE_BYTES = 32 * 1024;
/** What one read of the socket takes, bytes: more than a unix socket holds by default. One buffer for all of them, for the garbage collector's sake. */
const READ_BYTES = 256 * 1024;
/** Linux's EOPNOTSUPP: what a server hears that asks for memory. */
const NO_MEMORY_HERE = 95;

/** Connects to a server; the scope's end closes the connection. `device` is the name in errors. */
export const connectVfioUser = (
  device: string,
  socketPath: string,
  requestTimeout: Duration.Input = REQUEST_TIMEOUT,
): Effect.Effect<Connection, DeviceError, Scope.Scope> =>
  Effect.gen(function* () {
    const fail: Fail = (operation, errno, reason) => new DeviceError({ device, operation, errno, reason });
    const line = yield* Effect.acquireRelease(openLine(socketPath, fail), ({ socket }) =>
      Effect.sync(() => socket.destroy()),
    );
    const { exchange, close } = converse(line, fail);
    yield* Effect.addFinalizer(() => Effect.sync(close));
    const turn = yield* Semaphore.make(1);
    const tryAsk: Connection["tryAsk"] = ({ operation, request, read, timeout = requestTimeout }) =>
      turn.withPermit(
        exchange(operation, request, read as (reply: Reply) => unknown).pipe(
          Effect.timeoutOrElse({
            duration: timeout,
            orElse: () =>
              Effect.fail(
                fail(operation, "ETIMEDOUT", `no answer within ${Duration.format(Duration.fromInputUnsafe(timeout))}`),
              ),
          }),
        ),
      ) as Effect.Effect<never, DeviceError>;
    const ask: Connection["ask"] = (question) =>
      Effect.flatMap(tryAsk(question), (answer) =>
        isRefused(answer) ? Effect.fail(fail(question.operation, answer.errno, REFUSED)) : Effect.succeed(answer),
      );
    return { ask, tryAsk };
  });

type Fail = (operation: string, errno: string, reason: string) => DeviceError;

/** A socket, and whoever listens to it: a chunk is gone when `heard` returns. */
interface Line {
  readonly socket: Socket;
  heard: (chunk: Uint8Array) => void;
}

const openLine = (path: string, fail: Fail): Effect.Effect<Line, DeviceError> =>
  Effect.callback((resume) => {
    const buffer = new Uint8Array(READ_BYTES);
    const callback = (count: number): boolean => {
      line.heard(buffer.subarray(0, count));
      return true;
    };
    const socket = createConnection({ path, onread: { buffer, callback } });
    const line: Line = { socket, heard: () => {} };
    // Stays on: an error between this and the conversation would otherwise end the process. `converse` sees it as `destroyed`.
    socket.on("error", (error) => resume(Effect.fail(fail("connect", errnoOf(error), error.message))));
    socket.once("connect", () => {
      // Until the conversation listens; what arrives before stays in the socket.
      socket.pause();
      resume(Effect.succeed(line));
    });
    return Effect.sync(() => socket.destroy());
  });

type Settle = (result: Effect.Effect<unknown, DeviceError>) => void;
interface Waiting {
  readonly id: number;
  readonly operation: string;
  readonly command: number;
  readonly read: (reply: Reply) => unknown;
  readonly settle: Settle;
}

/** The listening side: hands the answer to whoever asked, refuses what the server asks, tells the end to whoever waits. */
const converse = (line: Line, fail: Fail) => {
  const { socket } = line;
  let waiting: Waiting | null = null;
  /** Ids of requests that nobody waits for any more, until their replies have come. */
  const abandoned = new Set<number>();
  let lastId = 0;
  /** Why the connection ended; null while it lives. */
  let end: { readonly errno: string; readonly reason: string } | null = null;

  const finish = (errno: string, reason: string): void => {
    if (end !== null) return;
    end = { errno, reason };
    socket.destroy();
    waiting?.settle(Effect.fail(fail(waiting.operation, errno, reason)));
    waiting = null;
  };
  const garbage = (reason: string): void => finish("EPROTO", `the server does not speak vfio-user: ${reason}`);

  const send = (frame: Uint8Array, data?: Uint8Array): void => {
    // One write for a frame: libvfio-user takes it from the socket with one recv.
    if (data !== undefined) socket.cork();
    socket.write(frame);
    if (data !== undefined) {
      socket.write(data);
      socket.uncork();
    }
    if (socket.writableLength > UNREAD_BYTES_MAX) garbage("it asks, and does not read the answers");
  };

  const receive = (header: Header, frame: Uint8Array): void => {
    if (end !== null) return;
    if (header.type === "command") {
      if (!header.noReply) send(encodeError(header, NO_MEMORY_HERE));
      return;
    }
    if (abandoned.delete(header.id)) return;
    if (waiting === null || waiting.id !== header.id) return garbage(`a reply to ${header.id}, which was not asked`);
    if (waiting.command !== header.command)
      return garbage(`a reply to ${commandName(header.command) ?? header.command} where another belongs`);
    const reply = decodeReply(frame);
    if (reply.kind === "malformed") return garbage(reply.reason);
    const answer = reply.kind === "error" ? refused(reply.errno) : waiting.read(reply);
    if (isMalformed(answer)) return garbage(answer.reason);
    const { settle } = waiting;
    waiting = null;
    settle(Effect.succeed(answer));
  };

  const nextId = (): number => {
    do lastId = (lastId + 1) & 0xffff;
    while (abandoned.has(lastId));
    return lastId;
  };

  const reader = makeFrameReader();
  line.heard = (chunk) => {
    const wrong = reader.push(chunk, receive);
    if (wrong !== null) garbage(wrong.reason);
  };
  socket.on("error", (error) => finish("EPIPE", error.message));
  socket.on("close", () =>
    finish("EPIPE", `the server ended the connection${reader.isInsideFrame() ? " in the middle of a message" : ""}`),
  );
  if (socket.destroyed) finish("EPIPE", "the server ended the connection");
  else socket.resume();

  const exchange = (
    operation: string,
    request: Request,
    read: (reply: Reply) => unknown,
  ): Effect.Effect<unknown, DeviceError> =>
    Effect.callback((resume) => {
      if (end !== null) return resume(Effect.fail(fail(operation, end.errno, end.reason)));
      const asked: Waiting = { id: nextId(), operation, command: COMMANDS[request.kind], read, settle: resume };
      waiting = asked;
      // Data that is longer goes as it is, to servers that need not get a frame at once.
      if (request.kind === "mig-data-write" && request.data.length > SMALL_WRITE_BYTES)
        send(encodeWriteHead(asked.id, request.data.length), request.data);
      else send(encodeRequest(asked.id, request));
      return Effect.sync(() => {
        if (waiting !== asked) return;
        waiting = null;
        abandoned.add(asked.id);
        if (abandoned.size > ABANDONED_MAX) finish("EPIPE", `the server left ${ABANDONED_MAX} requests unanswered`);
      });
    });
  return { exchange, close: () => finish("EPIPE", "the connection was closed") };
};

const isMalformed = (value: unknown): value is Malformed =>
  typeof value === "object" && value !== null && (value as { readonly kind?: unknown }).kind === "malformed";

const refused = (errno: number): Refused => ({ kind: "refused", errno: errnoName(errno) });
