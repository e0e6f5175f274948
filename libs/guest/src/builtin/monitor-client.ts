import { connect } from "node:net";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";

/** The longest answer, characters: a verification with 16 findings has about 2,000. */
const ANSWER_LENGTH_MAX = 65_536;
/** How long a command may take, ms: writing the ledger of a 1 TiB guest takes a few seconds. */
const COMMAND_TIMEOUT_MS = 15_000;

/** A command for a guest's monitor. */
export interface MonitorRequest {
  readonly socket: string;
  /** The guest's process: another one that has taken the socket over refuses with `no-such-guest`. */
  readonly pid: number;
  readonly execute: string;
  readonly arguments?: Readonly<Record<string, unknown>>;
  /**
   * What to wait for: the answer, within COMMAND_TIMEOUT_MS (the default); `done`, the answer to something as long as the
   * guest's memory is large; `closed`, within the same time the end of the connection behind the answer.
   */
  readonly until?: "answered" | "done" | "closed";
}

const Answer = Schema.fromJsonString(
  Schema.Union([
    Schema.Struct({ return: Schema.Unknown }),
    Schema.Struct({ error: Schema.Struct({ code: GodwitError.fields.code, reason: Schema.String }) }),
  ]),
);
const decodeAnswer = Schema.decodeUnknownEffect(Answer);

/** The error of a guest that did not do what `step` says. */
export const guestError = (code: GodwitError["code"], step: string, reason: string): GodwitError =>
  new GodwitError({ code, actor: "guest", step, reason });

/**
 * Asks one thing of a monitor, on a connection of its own, and decodes the answer by `schema`.
 *
 * Fails with the guest's own code when it refuses, and with `guest-failed` when it cannot be reached, breaks off, takes too
 * long, or answers something else. Interruption closes the connection; what was asked may still happen.
 */
export const ask = Effect.fnUntraced(function* <A>(request: MonitorRequest, schema: Schema.ConstraintDecoder<A>) {
  const failed = (reason: string): GodwitError =>
    guestError("guest-failed", request.execute, `process ${request.pid} at ${request.socket}: ${reason}`);
  const exchanged =
    request.until === "done" ? exchange(request) : exchange(request).pipe(Effect.timeout(COMMAND_TIMEOUT_MS));
  const text = yield* exchanged.pipe(
    Effect.mapError((error) => failed(typeof error === "string" ? error : `no answer within ${COMMAND_TIMEOUT_MS} ms`)),
  );
  const answer = yield* decodeAnswer(text).pipe(
    Effect.mapError((cause) => failed(`answered wrongly: ${cause.message}`)),
  );
  if ("error" in answer) return yield* guestError(answer.error.code, request.execute, answer.error.reason);
  return yield* Schema.decodeUnknownEffect(schema)(answer.return).pipe(
    Effect.mapError((cause) => failed(`answered wrongly: ${cause.message}`)),
  );
});

/** One line out, one line back; fails with the reason. */
const exchange = (request: MonitorRequest): Effect.Effect<string, string> =>
  Effect.callback((resume) => {
    const { pid, execute, arguments: args = {}, until } = request;
    const socket = connect(request.socket);
    let text = "";
    const settle = (outcome: Effect.Effect<string, string>): void => {
      socket.removeAllListeners("close");
      socket.destroy();
      resume(outcome);
    };
    socket.setEncoding("utf8");
    socket.on("connect", () => socket.write(`${JSON.stringify({ pid, execute, arguments: args })}\n`));
    socket.on("data", (chunk: string) => {
      text += chunk;
      if (text.length > ANSWER_LENGTH_MAX)
        settle(Effect.fail(`an answer of more than ${ANSWER_LENGTH_MAX} characters`));
      else if (text.endsWith("\n") && (until !== "closed" || isRefusal(text))) settle(Effect.succeed(text));
    });
    socket.on("error", (cause) => settle(Effect.fail(cause.message)));
    // The end is a word only behind an answer (R8).
    socket.on("close", () => settle(text.endsWith("\n") ? Effect.succeed(text) : Effect.fail("it broke off")));
    return Effect.sync(() => socket.destroy());
  });

/** Who refuses to quit does not close the connection either. */
const isRefusal = (text: string): boolean => text.startsWith('{"error":');

/** Whether nobody listens at a socket any more. Any other obstacle is no proof of that. */
export const isDeserted = (socketPath: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const socket = connect(socketPath);
    const settle = (deserted: boolean): void => {
      socket.destroy();
      resume(Effect.succeed(deserted));
    };
    socket.on("connect", () => settle(false));
    socket.on("error", (cause: NodeJS.ErrnoException) =>
      settle(cause.code === "ENOENT" || cause.code === "ECONNREFUSED"),
    );
    return Effect.sync(() => socket.destroy());
  });
