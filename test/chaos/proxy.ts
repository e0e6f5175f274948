/**
 * One actor's own way to NATS: a TCP proxy on loopback whose connections can be cut or turned into a black hole. It outlives the
 * server: while that is away, connections are refused, and later ones find the server that was started on the same port.
 */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** `open`: bytes pass. `cut`: every connection is reset, new ones too. `blackhole`: connections stand, bytes vanish, both ways. */
export type ProxyState = "open" | "cut" | "blackhole";

export interface TcpProxy {
  readonly port: number;
  /** Where it leads from now on. */
  readonly leadTo: (port: number) => void;
  readonly enter: (state: ProxyState) => void;
  readonly close: () => Promise<void>;
}

interface Pair {
  readonly near: Socket;
  readonly far: Socket;
  /** A stream with a hole in it is of no use: it ends when the black hole does. */
  hasHole: boolean;
}

/** `tap` sees every byte that passes, whichever way. */
export const openProxy = async (tap: (chunk: Buffer) => void = () => {}): Promise<TcpProxy> => {
  let target: number | null = null;
  let state: ProxyState = "open";
  const pairs = new Set<Pair>();

  const reset = (pair: Pair): void => {
    pairs.delete(pair);
    pair.near.resetAndDestroy();
    pair.far.resetAndDestroy();
  };
  const carry = (pair: Pair, from: Socket, to: Socket): void => {
    from.on("data", (chunk) => {
      if (state === "blackhole") pair.hasHole = true;
      else {
        tap(chunk);
        if (!to.write(chunk)) from.pause();
      }
    });
    to.on("drain", () => from.resume());
    // Through a black hole no end can be seen either.
    from.on("close", () => {
      if (state !== "blackhole") reset(pair);
    });
    from.on("error", () => undefined);
  };
  const server = createServer((near) => {
    if (state === "cut" || target === null) {
      near.on("error", () => undefined);
      return void near.resetAndDestroy();
    }
    near.setNoDelay(true);
    const pair: Pair = { near, far: connect(target, "127.0.0.1").setNoDelay(true), hasHole: state === "blackhole" };
    pairs.add(pair);
    carry(pair, near, pair.far);
    carry(pair, pair.far, near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    leadTo: (port) => {
      target = port;
    },
    enter: (next) => {
      state = next;
      if (next === "cut") for (const pair of pairs) reset(pair);
      if (next === "open") {
        for (const pair of pairs) if (pair.hasHole || pair.near.destroyed || pair.far.destroyed) reset(pair);
      }
    },
    close: async () => {
      const closed = once(server, "close");
      server.close();
      for (const pair of pairs) reset(pair);
      await closed;
    },
  };
};
