import { chownSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { PeerCredentials } from "@godwit/host";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { Qmp } from "./qmp.ts";

/** The longest path of a unix socket, bytes: sockaddr_un has 108 with the closing zero. */
const SOCKET_PATH_BYTES_MAX = 107;

/**
 * A path for a unix socket that only QEMU and this process can reach, in a directory of its own that goes with the scope.
 *
 * It lies beside the monitor's socket where that can be: QEMU reaches that place from where it runs (a container, a confined
 * service), and perhaps no other. QEMU may run as another user, and must then own the directory: it listens there as a destination.
 */
export const rendezvousPath = (qmp: Qmp): Effect.Effect<string, Error, Scope.Scope> =>
  Effect.acquireRelease(
    makeDirectory(dirname(qmp.socketPath), qmp.peer).pipe(Effect.catch(() => makeDirectory(tmpdir(), qmp.peer))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true })),
  ).pipe(Effect.map(socketIn));

const socketIn = (directory: string): string => join(directory, "migration");

const makeDirectory = (parent: string, peer: PeerCredentials): Effect.Effect<string, Error> =>
  Effect.try({
    try: () => {
      const template = join(parent, "godwit-");
      if (Buffer.byteLength(socketIn(`${template}XXXXXX`)) > SOCKET_PATH_BYTES_MAX)
        throw new Error(`${parent} is too long`);
      const directory = mkdtempSync(template);
      giveTo(peer, directory);
      return directory;
    },
    catch: asError,
  });

/** Only root can give a file away, and needs to: other users reach only a QEMU of their own. */
const giveTo = (peer: PeerCredentials, path: string): void => {
  const me = process.geteuid?.();
  if (me === 0 && peer.uid !== me) chownSync(path, peer.uid, peer.gid);
};

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
          giveTo(peer, path);
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
