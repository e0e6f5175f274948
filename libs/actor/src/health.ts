/**
 * Whether an actor can do its job, as it finds out itself when it is asked, on a unix socket of its own:
 * `<runtime directory>/health/<role>-<id>`. Whoever connects gets one line of JSON, and the connection ends.
 *
 * A socket and not a subject of NATS: it is this very process that answers, and not one of the same name elsewhere; and who asks needs
 * neither credentials nor a connection, so that asking every few seconds costs little. The actor itself asks NATS.
 */
import { mkdirSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { dirname } from "node:path";
import type { Member } from "@godwit/fabric";
import { type HealthReport, healthSocket } from "@godwit/protocol/health";
import * as Effect from "effect/Effect";

/** Something that the job needs. */
export interface Need {
  /** As an operator calls it: "bucket godwit-ownership", "folder /run/godwit". */
  readonly what: string;
  /** Fails, with what is in the way, when the actor cannot have it now. */
  readonly look: Effect.Effect<unknown, { readonly message: string }>;
}

/** How long one need may be looked at, ms: an answer that comes later is no good one. */
const LOOK_MS = 3_000;
/** Who asks at the same time, at most; more are let go without a word. */
const ASKING_MAX = 8;

/** Answers until the scope ends. A socket that cannot be had is told and changes nothing else: the actor does its job without. */
export const serveHealth = Effect.fnUntraced(function* (
  runtimeDirectory: string,
  member: Member,
  needs: ReadonlyArray<Need>,
) {
  const path = healthSocket(runtimeDirectory, member.role, idOf(member));
  const report = reporter(member, needs);
  const run = Effect.runForkWith(yield* Effect.context<never>());
  const asking = new Set<Socket>();
  const server = createServer((socket) => {
    // Who asks may go away in the middle.
    socket.on("error", () => {});
    if (asking.size >= ASKING_MAX) return void socket.destroy();
    asking.add(socket);
    socket.on("close", () => asking.delete(socket));
    run(Effect.map(report, (text) => socket.end(text)));
  });
  const listening = Effect.callback<void, Error>((resume) => {
    server.once("error", (cause) => resume(Effect.fail(cause)));
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
      // Of a former life; it was this actor's, for there is one of its name on a node.
      rmSync(path, { force: true });
      server.listen(path, () => resume(Effect.void));
    } catch (cause) {
      resume(Effect.fail(cause as Error));
    }
  });
  const close = Effect.sync(() => {
    server.close();
    for (const socket of asking) socket.destroy();
  });
  yield* Effect.acquireRelease(
    Effect.catch(listening, (cause) =>
      Effect.logWarning(`\`godwit health\` will not find this actor: ${cause.message}`),
    ),
    () => close,
  );
});

/** Coordinators have no number: there is one of each name on a host. */
const idOf = ({ role, id }: Member): string => (role === "coordinator" ? "0" : id);

const reporter = (member: Member, needs: ReadonlyArray<Need>): Effect.Effect<string> =>
  Effect.map(Effect.forEach(needs, finding, { concurrency: "unbounded" }), (found) => {
    const report: HealthReport = {
      role: member.role,
      node: member.node,
      id: idOf(member),
      incarnation: member.incarnation,
      healthy: found.every(({ reason }) => reason === null),
      findings: found,
    };
    return `${JSON.stringify(report)}\n`;
  });

const finding = ({ what, look }: Need): Effect.Effect<HealthReport["findings"][number]> =>
  look.pipe(
    Effect.as(null),
    Effect.timeoutOrElse({ duration: LOOK_MS, orElse: () => Effect.succeed(`no answer within ${LOOK_MS} ms`) }),
    Effect.catch(({ message }) => Effect.succeed(message)),
    Effect.map((reason) => ({ what, reason })),
  );
