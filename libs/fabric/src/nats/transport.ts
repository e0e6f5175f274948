/**
 * The NATS client's own transport, with two things added for long messages, whose copies are what its processor time goes to: they are read
 * straight into their own memory, and written from where they stand.
 */
import { TLSSocket } from "node:tls";
import { NatsConnectionImpl, setTransportFactory } from "@nats-io/nats-core/internal";
import type { ConnectionOptions, NatsConnection } from "@nats-io/transport-node";
import { NodeTransport, nodeResolveHost } from "@nats-io/transport-node/lib/node_transport.js";
import { pour } from "../kernel/byte-sink.ts";
import { free, isWhole } from "../own-memory.ts";
import { readInto } from "../own-reads.ts";
import { makeRoomMemory } from "../room-memory.ts";
import { makeMessageReader } from "./kernel/message-reader.ts";

/** A frame that long is one that the client has packed for itself; shorter ones may be constants, and are not worth the trouble. */
const FRAME_BYTES_MIN = 65_536;
const CRLF = Buffer.from("\r\n");

/** One for both connections of an actor. */
const allocate = makeRoomMemory();

class UncopyingTransport extends NodeTransport {
  override setupHandlers(): void {
    const sink = makeMessageReader({
      give: (piece) => {
        this.yields.push(piece);
        this.signal.resolve();
      },
      allocate,
    });
    if (this.socket instanceof TLSSocket) {
      super.setupHandlers();
      this.socket.removeAllListeners("data");
      this.socket.on("data", (chunk: Buffer) => pour(sink, chunk));
    } else {
      this.socket = readInto(this.socket, sink).setNoDelay(true);
      super.setupHandlers();
    }
  }

  override send(frame: Uint8Array): void {
    const sent = () => {
      if (frame.length >= FRAME_BYTES_MIN && isWhole(frame)) free(frame);
    };
    // A write that fails is noticed by reading, or by a heartbeat that stays away.
    this._send(frame).then(sent, sent);
  }

  /** `done` once, when the payload has left or never will. */
  sendMessage(line: string, payload: Uint8Array, done: () => void): void {
    if (this.isClosed || this.socket === undefined) return done();
    this.socket.cork();
    this.socket.write(line);
    this.socket.write(payload, done);
    this.socket.write(CRLF);
    this.socket.uncork();
  }
}

/** As the client's `connect`, which would set its own transport again. */
export const connect = (options: ConnectionOptions): Promise<NatsConnection> => {
  setTransportFactory({ factory: () => new UncopyingTransport(), dnsResolveFn: nodeResolveHost });
  return NatsConnectionImpl.connect(options);
};

/** What of the client this file uses beside what it shows. */
interface Inside {
  readonly connected: boolean;
  readonly flushPending: () => void;
  outBytes: number;
  outMsgs: number;
  readonly transport: UncopyingTransport;
}

/**
 * As the client's `publish`, behind what was published before, but without its copy: the payload must stay as it is until `done`, which is
 * called once. False: there is no connection, and nothing was sent. Throws what `publish` throws. `done` is not called in either case.
 */
export const publishUncopied = (
  nc: NatsConnection,
  subject: string,
  payload: Uint8Array,
  done: () => void,
): boolean => {
  const client = nc as unknown as NatsConnectionImpl;
  const inside = client.protocol as unknown as Inside;
  client._check(subject, false, true);
  // The client would keep it for the next connection, as which there is one only once it has been welcomed.
  if (!inside.connected) return false;
  inside.flushPending();
  inside.outBytes += payload.length;
  inside.outMsgs++;
  inside.transport.sendMessage(`PUB ${subject} ${payload.length}\r\n`, payload, done);
  return true;
};
