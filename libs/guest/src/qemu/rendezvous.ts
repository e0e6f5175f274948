import { chownSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { PeerCredentials } from "@godwit/host";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";

/**
 * A path for a unix socket that only QEMU and this process can reach, in a directory of its own that goes with the scope.
 * QEMU may run as another user, and must then own that directory: it listens there as a destination.
 */
export const rendezvousPath = (peer: PeerCredentials): Effect.Effect<string, Error, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => {
        const directory = mkdtempSync(join(tmpdir(), "godwit-"));
        if (peer.uid !== process.geteuid?.() && process.geteuid?.() === 0) chownSync(directory, peer.uid, peer.gid);
        return directory;
      },
      catch: asError,
    }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true })),
  ).pipe(Effect.map((directory) => join(directory, "migration")));

/** Listens on a unix socket for the one connection that will come; its end and that of the socket lie with the scope. */
export const listenOnce = (
  path: string,
  peer: PeerCredentials,
): Effect.Effect<{ readonly connection: Effect.Effect<Socket> }, Error, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<{ server: Server; accepted: Promise<Socket> }, Error>((resume) => {
      const server = createServer({ pauseOnConnect: true });
      server.maxConnections = 1;
      const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
      server.once("error", (error) => resume(Effect.fail(error)));
      server.listen(path, () => {
        try {
          if (peer.uid !== process.geteuid?.() && process.geteuid?.() === 0) chownSync(path, peer.uid, peer.gid);
          resume(Effect.succeed({ server, accepted }));
        } catch (error) {
          resume(Effect.fail(asError(error)));
        }
      });
    }),
    ({ server, accepted }) =>
      Effect.sync(() => {
        server.close();
        accepted.then((socket) => socket.destroy());
      }),
  ).pipe(Effect.map(({ accepted }) => ({ connection: Effect.promise(() => accepted) })));

const asError = (cause: unknown): Error => (cause instanceof Error ? cause : new Error(String(cause)));
