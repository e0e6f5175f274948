/**
 * A launcher starts guests for the actors of its host, on a unix socket. It does nothing else, so that it has no reason to end: a
 * container engine ends all processes of a container together, and the actor that a guest was started for must be free to die.
 *
 *   starter                         launcher
 *   { entry, spec, log } --------->  spawns
 *          <---- { pid } ----------
 *          <---- { report } -------  the program's own word; from now on it does not depend on the starter
 *          <---- { exited } -------
 */
import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { startHere } from "./detached-process.ts";
import type { LauncherWord } from "./launcher-client.ts";

/** The longest request, bytes: a spec has some hundred. */
const REQUEST_BYTES_MAX = 65_536;

/** Listens on `socketPath` for whoever may write there. Only programs of `entries` are started. Rejects when the socket cannot be had. */
export const serveLauncher = (socketPath: string, entries: ReadonlyArray<string>): Promise<Server> =>
  new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      const say = (word: LauncherWord): void => {
        if (socket.writable) socket.write(`${JSON.stringify(word)}\n`);
      };
      // Who asked may go at any time: "close" follows.
      socket.on("error", () => {});
      requestOf(socket)
        .then((line) => launch(line, entries, socket, say))
        .catch((cause: Error) => {
          say({ failed: cause.message });
          socket.end();
        });
    });
    server.once("error", reject);
    // Of a former life, whose processes are gone.
    rmSync(socketPath, { force: true });
    server.listen(socketPath, () => resolve(server));
  });

const requestOf = (socket: Socket): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = "";
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => {
      text += chunk;
      if (text.includes("\n")) resolve(text);
      else if (text.length > REQUEST_BYTES_MAX) reject(new Error(`a request has more than ${REQUEST_BYTES_MAX} bytes`));
    });
    socket.on("close", () => reject(new Error("no request")));
  });

const launch = async (
  line: string,
  entries: ReadonlyArray<string>,
  socket: Socket,
  say: (word: LauncherWord) => void,
): Promise<void> => {
  const { entry, spec, log } = JSON.parse(line) as Readonly<Record<string, unknown>>;
  if (typeof entry !== "string" || typeof spec !== "string" || typeof log !== "string")
    throw new Error("a request is { entry, spec, log }, each a text");
  if (!entries.includes(entry))
    throw new Error(`${entry} is no program that it starts; those are ${entries.join(", ")}`);
  const child = await startHere({ entry, spec, log });
  let reported = false;
  socket.on("close", () => {
    if (!reported) child.kill("SIGTERM");
  });
  say({ pid: child.pid });
  child.exited.then(() => {
    say({ exited: true });
    socket.end();
  });
  await child.report.then(
    (report) => {
      reported = true;
      say({ report });
    },
    // Its end is told.
    () => {},
  );
};
