/** A TCP port for direct connections: who does not prove a token in time is shut out without a byte. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { createSecureContext } from "node:tls";
import { LANE_FRAME_BYTES_MAX, LANE_HELLO_BYTES, LANE_RECEIPT_BYTES } from "@godwit/protocol";
import type { ByteSink } from "../kernel/byte-sink.ts";
import type { ListenPlace } from "./addresses.ts";
import { type Inlet, plainInlet, type Receiving, tlsInlet } from "./inlet.ts";
import { makeFrameReader } from "./kernel/frame-reader.ts";
import { LANE_TLS } from "./tls.ts";

/** From the connection to the whole hello, TLS included, ms; a round trip or three on the longest way around the earth, from a worker that is busy. */
export const HELLO_MS = 5_000;
/** Connections that have not proved anything: as many as channels may begin at once. Further ones are closed at once. */
export const STRANGERS_MAX = 256;

/** Whoever takes what comes by one connection that was let in. */
export interface Admitted {
  /** Said once, before anything else. */
  readonly welcome: Uint8Array;
  readonly take: (frame: Uint8Array) => void;
  readonly closed: () => void;
}

export interface DoorOptions {
  readonly place: ListenPlace;
  readonly tls: boolean;
  readonly allocate: (bytes: number) => Uint8Array;
  /** Of a token; null for one that nobody may use. */
  readonly secretOf: (token: string) => Uint8Array | null;
  /** A whole hello has come: who takes the connection, or why nobody does. */
  readonly admit: (hello: Uint8Array, inlet: Inlet) => Admitted | { readonly refused: string };
  /** Somebody was shut out; for the log. */
  readonly refused: (remote: string, reason: string) => void;
}

export interface Door {
  readonly host: string;
  readonly port: number;
  /** Ends every connection, too. */
  readonly close: () => void;
}

/** Rejects when no port of the range can be had. */
export const openDoor = async (options: DoorOptions): Promise<Door> => {
  const { place, tls, refused } = options;
  const inlets = new Set<Inlet>();
  const secureContext = tls ? createSecureContext(LANE_TLS) : null;
  let strangers = 0;

  const meet = (socket: Socket): void => {
    const remote = `${socket.remoteAddress ?? "nobody"}:${socket.remotePort ?? 0}`;
    if (strangers >= STRANGERS_MAX) {
      socket.destroy();
      return refused(remote, `${STRANGERS_MAX} connections have said no hello yet`);
    }
    const hello = new Uint8Array(LANE_HELLO_BYTES);
    let helloHere = 0;
    let frames: ByteSink | null = null;
    let admitted: Admitted | null = null;
    let isStranger = true;
    strangers++;
    const known = (): void => {
      if (isStranger) strangers--;
      isStranger = false;
      clearTimeout(late);
    };
    const late = setTimeout(() => {
      inlet.destroy();
      refused(remote, `it said no hello within ${HELLO_MS} ms`);
    }, HELLO_MS);
    const heard = (): boolean => {
      known();
      const found = options.admit(hello, inlet);
      if ("refused" in found) {
        refused(remote, found.refused);
        return false;
      }
      admitted = found;
      inlet.write(found.welcome);
      const give = receipted(inlet, found.take);
      frames = makeFrameReader({ frameBytesMax: LANE_FRAME_BYTES_MAX, allocate: options.allocate, give });
      return true;
    };
    const receiving: Receiving = {
      sink: {
        room: () => frames?.room() ?? hello.subarray(helloHere),
        filled: (bytes) => {
          if (frames !== null) return frames.filled(bytes);
          helloHere += bytes;
          return helloHere < LANE_HELLO_BYTES || heard();
        },
      },
      closed: () => {
        known();
        inlets.delete(inlet);
        admitted?.closed();
      },
    };
    const inlet =
      secureContext === null
        ? plainInlet(socket, receiving)
        : tlsInlet(socket, secureContext, options.secretOf, receiving);
    inlets.add(inlet);
  };

  const server = await firstFree(place, async (port) => {
    const made = createServer({ pauseOnConnect: !tls }, meet);
    made.listen({ host: place.host, port, exclusive: true });
    await once(made, "listening");
    // One connection that could not be accepted is nobody's end.
    made.on("error", () => undefined);
    return made;
  });
  return {
    host: place.host,
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      for (const inlet of [...inlets]) inlet.destroy();
    },
  };
};

/** Frames taken are told once for all of a turn of the event loop. */
const receipted = (inlet: Inlet, take: (frame: Uint8Array) => void): ((frame: Uint8Array) => void) => {
  let taken = 0;
  let isDue = false;
  const tell = (): void => {
    isDue = false;
    const receipt = Buffer.allocUnsafe(LANE_RECEIPT_BYTES);
    receipt.writeUInt32LE(taken);
    inlet.write(receipt);
  };
  return (frame) => {
    taken = (taken + 1) >>> 0;
    take(frame);
    if (isDue) return;
    isDue = true;
    setImmediate(tell);
  };
};

/** Two actors of a host share a range, and find their own places in it. */
const firstFree = async (
  { firstPort, lastPort }: ListenPlace,
  listen: (port: number) => Promise<Server>,
): Promise<Server> => {
  for (let port = firstPort; ; port++) {
    try {
      return await listen(port);
    } catch (error) {
      if (port >= lastPort) throw error;
    }
  }
};
