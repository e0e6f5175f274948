import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as Effect from "effect/Effect";

export const greeting = (major: number): string =>
  `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": ${major}}, "package": ""}, "capabilities": []}}\n`;

export interface Command {
  readonly execute: string;
  readonly id: unknown;
}

/** A socket that behaves as badly as `answer` says; no QEMU can be made to. It greets, and answers the handshake. */
export const monitor = (answer: (socket: Socket, command: Command) => void, hello = greeting(8)) =>
  Effect.acquireRelease(
    Effect.callback<{ path: string; close: () => void }>((resume) => {
      const directory = mkdtempSync(join(tmpdir(), "godwit-qmp-"));
      const path = join(directory, "qmp");
      const sockets = new Set<Socket>();
      const server = createServer((socket) => {
        sockets.add(socket);
        socket.on("error", () => {});
        socket.write(hello);
        socket.on("data", (chunk) => {
          for (const line of String(chunk).trim().split("\n")) {
            const command = JSON.parse(line) as Command;
            if (command.execute === "qmp_capabilities") reply(socket, command, {});
            else answer(socket, command);
          }
        });
      });
      const close = () => {
        for (const socket of sockets) socket.destroy();
        server.close();
        rmSync(directory, { recursive: true });
      };
      server.listen(path, () => resume(Effect.succeed({ path, close })));
    }),
    ({ close }) => Effect.sync(close),
  ).pipe(Effect.map(({ path }) => path));

export const reply = (socket: Socket, { id }: Command, value: unknown) =>
  socket.write(`${JSON.stringify({ return: value, id })}\n`);

export const emit = (socket: Socket, event: string, data: unknown) =>
  socket.write(`${JSON.stringify({ event, data })}\n`);
