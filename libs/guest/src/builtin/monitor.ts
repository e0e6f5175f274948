/**
 * The guest's monitor: a unix socket that answers JSON lines, in the manner of QMP.
 *
 *     client                                               guest
 *       |-- {"execute":"pause","arguments":{},"id":1} \n --> |
 *       | <---------------------- {"return":null,"id":1} \n -|
 *       |-- rubbish \n ------------------------------------> |
 *       | <-- {"error":{"code":"invalid-request",...}} \n ---|
 *
 * Each client's requests are answered one by one, in order; clients do not wait for each other. `id` is any JSON value and
 * comes back as it was; a request that names another `pid` than this process is refused, since a socket's path can have
 * changed hands. A line that is too long is answered with an error and ends the connection.
 */
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { Refusal, refusalOf } from "./refusal.ts";

/** The longest request, bytes: paths are the longest thing in it. */
export const REQUEST_BYTES_MAX = 65_536;
/** Connections at one time; a node needs a handful. */
export const CLIENTS_MAX = 64;
const NEWLINE = 0x0a;

/** One command. `signal` tells that the client has closed its side and waits no longer. */
export type MonitorHandler = (args: Readonly<Record<string, unknown>>, signal: AbortSignal) => unknown;

/** Waits for what may take long, as long as the client does. */
export const whileWanted = async <A>(wanted: Promise<A> | undefined, signal: AbortSignal): Promise<A | undefined> => {
  const given = Promise.withResolvers<never>();
  const giveUp = (): void => given.reject(new Refusal("cancelled", "the client waits no longer"));
  signal.addEventListener("abort", giveUp);
  if (signal.aborted) giveUp();
  try {
    return await Promise.race([wanted, given.promise]);
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
};

/** Listens at `path`, which must not exist, for this user alone. */
export const serveMonitor = async (path: string, handlers: ReadonlyMap<string, MonitorHandler>): Promise<Server> => {
  // Half open: who sends a request and closes its side still gets the answer to what does not take long.
  const server = createServer({ allowHalfOpen: true }, (socket) => serve(socket, handlers));
  server.maxConnections = CLIENTS_MAX;
  // Whoever may connect may stop the guest. bind takes the mode from the umask.
  const umask = process.umask(0o077);
  try {
    server.listen(path);
    await once(server, "listening");
  } finally {
    process.umask(umask);
  }
  return server;
};

const serve = (socket: Socket, handlers: ReadonlyMap<string, MonitorHandler>): void => {
  const gone = new AbortController();
  let rest: Buffer = Buffer.alloc(0);
  let busy = false;

  const answerLines = async (): Promise<void> => {
    for (let end = rest.indexOf(NEWLINE); end >= 0 && end <= REQUEST_BYTES_MAX; end = rest.indexOf(NEWLINE)) {
      const line = rest.toString("utf8", 0, end);
      rest = rest.subarray(end + 1);
      socket.resume();
      if (line.trim() !== "") await send(socket, await answer(line, handlers, gone.signal));
    }
    if (rest.length > REQUEST_BYTES_MAX) {
      const refusal = new Refusal("invalid-request", `a request has more than ${REQUEST_BYTES_MAX} bytes`);
      await send(socket, errorAnswer(refusal, undefined));
      gone.abort();
    }
    if (gone.signal.aborted) socket.destroySoon();
  };
  const work = (): void => {
    if (busy) return;
    busy = true;
    answerLines()
      // The client has broken off in the middle of an answer: there is nobody left to tell.
      .catch(() => socket.destroy())
      .finally(() => {
        busy = false;
      });
  };

  socket.on("data", (chunk) => {
    if (gone.signal.aborted) return;
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    // Requests are read ahead while one is at work, so that the client's end is seen; but not without limit.
    if (busy && rest.length > REQUEST_BYTES_MAX) socket.pause();
    work();
  });
  socket.on("end", () => {
    gone.abort();
    work();
  });
  socket.on("close", () => gone.abort());
  // Without a listener an error event would end the process; "close" follows it.
  socket.on("error", () => undefined);
};

/** Never rejects: whatever goes wrong is the answer. */
const answer = async (
  line: string,
  handlers: ReadonlyMap<string, MonitorHandler>,
  signal: AbortSignal,
): Promise<object> => {
  let id: unknown;
  try {
    const request = parseRequest(line);
    id = request["id"];
    if (request["pid"] !== undefined && request["pid"] !== process.pid) {
      throw new Refusal("no-such-guest", `this is process ${process.pid}, not ${JSON.stringify(request["pid"])}`);
    }
    const { execute, arguments: args = {} } = request as { execute?: unknown; arguments?: unknown };
    const handler = typeof execute === "string" ? handlers.get(execute) : undefined;
    if (handler === undefined) {
      const known = [...handlers.keys()].join(", ");
      throw new Refusal("invalid-request", `no command ${JSON.stringify(execute)?.slice(0, 80)}; there are ${known}`);
    }
    if (typeof args !== "object" || args === null || Array.isArray(args)) {
      throw new Refusal("invalid-request", "arguments is not an object");
    }
    const result = await handler(args as Record<string, unknown>, signal);
    return { return: result ?? null, id };
  } catch (cause) {
    return errorAnswer(refusalOf(cause), id);
  }
};

const parseRequest = (line: string): Record<string, unknown> => {
  let request: unknown;
  try {
    request = JSON.parse(line);
  } catch (cause) {
    throw new Refusal("invalid-request", `not JSON: ${(cause as Error).message}`);
  }
  if (typeof request !== "object" || request === null || Array.isArray(request)) {
    throw new Refusal("invalid-request", "a request is a JSON object");
  }
  return request as Record<string, unknown>;
};

const errorAnswer = ({ code, message }: Refusal, id: unknown): object => ({ error: { code, reason: message }, id });

/** Waits for a client that reads slowly, so that answers do not pile up. Rejects when it breaks off. */
const send = async (socket: Socket, message: object): Promise<void> => {
  if (socket.write(`${JSON.stringify(message)}\n`)) return;
  const closed = new AbortController();
  const close = (): void => closed.abort();
  socket.once("close", close);
  try {
    await once(socket, "drain", { signal: closed.signal });
  } finally {
    socket.off("close", close);
  }
};
