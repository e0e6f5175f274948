/** Sockets that read into memory of the caller's own. */
import { Socket } from "node:net";
import type { ByteSink } from "./kernel/byte-sink.ts";

/**
 * Takes over the connection of a socket, which is at its end: the new one reads into the sink, and has no "data". Node does so only for
 * sockets that are made with `onread`, which those of a server and of the NATS client are not. `isPaused` is asked after each read; a
 * sink that refuses what came ends the connection.
 */
export const readInto = (taken: Socket, sink: ByteSink, isPaused: () => boolean = () => false): Socket => {
  const holder = taken as unknown as { _handle: unknown };
  const handle = holder._handle;
  holder._handle = null;
  taken.destroy();
  const options = {
    handle,
    onread: {
      buffer: () => sink.room(),
      callback: (bytes: number): boolean => {
        if (sink.filled(bytes)) return !isPaused();
        socket.destroy();
        return false;
      },
    },
  };
  // The types of Node do not know `handle`, which its own servers make their sockets with.
  const socket = new Socket(options as never);
  return socket;
};
