/**
 * A client of NATS that is little more than its socket: no reconnect, no authentication, no TLS. What it reaches is what the server can carry, and the
 * measure of every client that does more.
 */
import { once } from "node:events";
import { connect } from "node:net";
import type { BareClient, Hear } from "./client.ts";

/** Bytes of one read: the server writes up to 64 KiB in each of its own. */
const READ_BYTES = 1024 ** 2;
/** Longer payloads are counted and thrown away. */
const KEPT_BYTES_MAX = 64;
const LINE_END = "\n".charCodeAt(0);
const CRLF = Buffer.from("\r\n");

/** `hear` gets short payloads, and of longer ones that they have come. */
export const connectSocket = async (url: string, hear: Hear): Promise<BareClient> => {
  const { hostname, port } = new URL(url);
  let line = "";
  let subject = "";
  /** Bytes of the payload and its CRLF that are still to come. */
  let missing = 0;
  let isKept = false;
  let kept: Uint8Array[] = [];
  let pongs: Array<() => void> = [];
  let sids = 0;

  const take = (chunk: Buffer): void => {
    for (let at = 0; at < chunk.length; ) {
      if (missing > 0) {
        const count = Math.min(missing, chunk.length - at);
        // A copy: the next read overwrites what is under it.
        if (isKept) kept.push(Uint8Array.from(chunk.subarray(at, at + count)));
        missing -= count;
        at += count;
        if (missing > 0) continue;
        const payload = Buffer.concat(kept);
        kept = [];
        hear(subject, payload.subarray(0, Math.max(0, payload.length - CRLF.length)));
        continue;
      }
      const end = chunk.indexOf(LINE_END, at);
      line += chunk.toString("latin1", at, end === -1 ? chunk.length : end);
      if (end === -1) return;
      at = end + 1;
      const words = line.trimEnd().split(" ");
      line = "";
      if (words[0] === "MSG") {
        subject = words[1]!;
        missing = Number(words.at(-1)) + CRLF.length;
        isKept = missing <= KEPT_BYTES_MAX;
      } else if (words[0] === "PING") socket.write("PONG\r\n");
      else if (words[0] === "PONG") pongs.shift()?.();
    }
  };
  const socket = connect({
    host: hostname,
    port: Number(port),
    noDelay: true,
    onread: {
      buffer: Buffer.allocUnsafeSlow(READ_BYTES),
      callback: (bytes, buffer) => {
        take(Buffer.from(buffer.buffer, buffer.byteOffset, bytes));
        return true;
      },
    },
  });
  await once(socket, "connect");
  socket.write('CONNECT {"verbose":false,"pedantic":false,"name":"bare"}\r\n');
  return {
    subscribe: (wanted) => void socket.write(`SUB ${wanted} ${++sids}\r\n`),
    publish: (to, payload) => {
      socket.cork();
      socket.write(`PUB ${to} ${payload.length}\r\n`);
      socket.write(payload);
      socket.write(CRLF);
      socket.uncork();
    },
    flush: () =>
      new Promise<void>((resolve) => {
        pongs = [...pongs, resolve];
        socket.write("PING\r\n");
      }),
  };
};
