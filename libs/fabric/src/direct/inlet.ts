/** The receiving end of one connection: bytes go where a sink wants them, and stop coming while it has no room for more. */
import type { Socket } from "node:net";
import { type SecureContext, TLSSocket } from "node:tls";
import { type ByteSink, pour } from "../kernel/byte-sink.ts";
import { readInto } from "../own-reads.ts";

/** What may wait for a peer that does not read it, bytes: receipts are four each, and one of ours reads them at once. */
const UNREAD_BYTES_MAX = 64 * 1024;

export interface Inlet {
  readonly write: (bytes: Uint8Array) => void;
  /** Nothing more is read until `resume`; what was read already has come. */
  readonly pause: () => void;
  readonly resume: () => void;
  readonly destroy: () => void;
}

export interface Receiving {
  readonly sink: ByteSink;
  /** The connection is over, by whichever end; once. */
  readonly closed: () => void;
}

const inletOn = (socket: Socket, closed: () => void): Inlet => {
  socket.setNoDelay(true);
  // Whatever the error, the connection is over.
  socket.on("error", () => undefined);
  // Who sends nothing more is done.
  socket.on("end", () => socket.destroy());
  socket.once("close", closed);
  return {
    write: (bytes) => {
      if (socket.writableLength > UNREAD_BYTES_MAX) socket.destroy();
      else socket.write(bytes);
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    destroy: () => void socket.destroy(),
  };
};

/** Takes over a connection that was accepted and not read from (`pauseOnConnect`). */
export const plainInlet = (accepted: Socket, { sink, closed }: Receiving): Inlet => {
  let isPaused = false;
  const socket = readInto(accepted, sink, () => isPaused);
  const inlet = inletOn(socket, closed);
  socket.resume();
  return {
    ...inlet,
    pause: () => {
      isPaused = true;
      inlet.pause();
    },
    resume: () => {
      isPaused = false;
      inlet.resume();
    },
  };
};

/** One whose bytes are decrypted first: they come in memory of OpenSSL's, and are copied. `secretOf`: by the name of a token. */
export const tlsInlet = (
  accepted: Socket,
  secureContext: SecureContext,
  secretOf: (token: string) => Uint8Array | null,
  { sink, closed }: Receiving,
): Inlet => {
  const pskCallback = (_: unknown, token: string): Uint8Array | null => secretOf(token);
  const socket = new TLSSocket(accepted, { isServer: true, secureContext, pskCallback } as never);
  accepted.on("error", () => undefined);
  const inlet = inletOn(socket, closed);
  socket.on("data", (chunk: Buffer) => {
    if (!pour(sink, chunk)) socket.destroy();
  });
  return inlet;
};
