import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { json, LaneOffer, LaneRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Fiber from "effect/Fiber";
import * as Scope from "effect/Scope";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Message } from "../fabric.ts";
import { letGo } from "../own-memory.ts";
import { networkId, parseListen } from "./addresses.ts";
import { type DirectDestination, type Landing, makeDirectDestination } from "./destination.ts";
import { HELLO_MS, STRANGERS_MAX } from "./door.ts";
import { WAITING_BYTES_MAX } from "./landing.ts";
import { type Outlet, openOutlet, STALL_MS } from "./outlet.ts";
import { helloOf, welcomeOf } from "./proof.ts";

const MIGRATION = "00000000000000aa";
const ROUTE = { migration: MIGRATION, source: "a", destination: "b" };
const ASKED_ON = "godwit.m.00000000000000aa.a.b.direct";
const CLAIM = { migration: MIGRATION, epoch: 1, purpose: "ram", channel: 1 } as const;
const LAND = { route: ROUTE, epoch: 1, purpose: "ram", subjectOf: (channel: number) => `ch.${channel}` } as const;
const requests = json(LaneRequest);
const offers = json(LaneOffer);

let scope: Scope.Closeable;
const sockets = new Set<Socket>();
const closers: Array<() => void> = [];
beforeEach(() => {
  scope = Effect.runSync(Scope.make());
});
afterEach(async () => {
  for (const close of closers.splice(0)) close();
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  await Effect.runPromise(Scope.close(scope, Exit.void));
});
const run = <A, E>(work: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
  Effect.runPromise(Effect.provideService(work, Scope.Scope, scope));

const open = async (options: { readonly listen?: string; readonly tls?: boolean } = {}) => {
  const listen = parseListen(options.listen ?? "127.0.0.1:0") ?? null;
  const destination = await run(
    makeDirectDestination({ actor: "loader", listen, announced: [], tls: options.tls ?? false }),
  );
  return { destination, landing: await run(destination.land(LAND, ASKED_ON)) };
};
const ask = async (destination: DirectDestination, change: object = {}, subject = ASKED_ON): Promise<LaneOffer> => {
  const asked = requests.encode({ ...CLAIM, network: networkId(), ...change } as never);
  const answer = await Effect.runPromise(destination.endpoint("direct", subject).handle(asked, subject));
  return offers.decode(answer) as LaneOffer;
};
interface Dialed {
  readonly outlet: Outlet;
  readonly ended: Promise<string>;
  readonly close: () => void;
}
const dial = (offer: LaneOffer, change: object = {}): Promise<Dialed> =>
  new Promise((resolve, reject) => {
    const ended = Promise.withResolvers<string>();
    const close = openOutlet(
      offer,
      { ...CLAIM, token: offer.token, ...change },
      {
        opened: (outlet) => resolve({ outlet, ended: ended.promise, close }),
        ended: (reason, quietly) => {
          ended.resolve(quietly ? `${reason}, quietly` : reason);
          reject(new Error(reason));
        },
      },
    );
    closers.push(close);
  });
const send = ({ outlet }: Dialed, packet: Uint8Array): Promise<void> =>
  new Promise((done) => {
    const room = new Uint8Array(packet.length + 4);
    room.set(packet, 4);
    outlet.send(room.subarray(4), done);
  });
const take = async (landing: Landing, count: number): Promise<ReadonlyArray<Message>> => {
  const taken: Message[] = [];
  while (taken.length < count) taken.push(...(await Effect.runPromise(landing.takeAll)));
  return taken;
};
/** What a plain client gets that says this; it is closed in the end. */
const answerTo = async (port: number, said: Uint8Array): Promise<Buffer> => {
  const socket = connect(port, "127.0.0.1");
  sockets.add(socket);
  const got: Buffer[] = [];
  socket.on("data", (chunk) => got.push(chunk));
  socket.on("error", () => undefined);
  const closed = new Promise((resolve) => socket.once("close", resolve));
  socket.write(said);
  await closed;
  return Buffer.concat(got);
};
const portOf = (offer: LaneOffer): number => Number(offer.addresses[0]!.split(":").at(-1));

describe.each([
  ["a plain connection", false],
  ["one with TLS", true],
])("%s", (_, tls) => {
  it("carries packets of all lengths, in order, as they were", async () => {
    const { destination, landing } = await open({ tls });
    const offer = await ask(destination);
    expect(offer.tls).toBe(tls);
    const dialed = await dial(offer);
    const packets = Array.from({ length: 60 }, (_, i) => randomBytes(1 + ((i * 37_813) % 262_000)));
    for (const packet of packets) {
      while (!dialed.outlet.hasRoom(packet.length)) await new Promise(setImmediate);
      void send(dialed, packet);
    }
    const taken: Buffer[] = [];
    while (taken.length < packets.length)
      for (const { subject, data } of await take(landing, 1)) {
        expect(subject).toBe("ch.1");
        taken.push(Buffer.from(data));
        // Memory that was given back is another packet's at once.
        letGo(data);
      }
    expect(taken.map((data, i) => data.equals(packets[i]!))).toEqual(packets.map(() => true));
  });

  it("lets nobody in twice by one token, and tells a stranger nothing", async () => {
    const { destination, landing } = await open({ tls });
    const offer = await ask(destination);
    await dial(offer);
    await expect(dial(offer)).rejects.toThrow();
    await expect(dial(await ask(destination), { channel: 2 })).rejects.toThrow();
    await expect(dial({ ...(await ask(destination)), secret: randomBytes(32).toString("hex") })).rejects.toThrow();
    await expect(dial({ ...(await ask(destination)), token: "0".repeat(16) })).rejects.toThrow();
    const hello = helloOf({ ...CLAIM, token: "0".repeat(16) }, randomBytes(32));
    for (const said of [
      hello,
      randomBytes(64),
      randomBytes(100_000),
      Buffer.from("GET / HTTP/1.1\r\n\r\n".repeat(8)),
    ]) {
      const got = await answerTo(portOf(offer), said);
      // Of TLS an alert of a few bytes, which says that it was no TLS.
      expect(got.length).toBeLessThanOrEqual(tls ? 7 : 0);
    }
    const idle = await Promise.race([take(landing, 1), new Promise((resolve) => setTimeout(resolve, 50, "nothing"))]);
    expect(idle).toBe("nothing");
  });
});

describe("a destination", () => {
  it("offers nothing to who asks for another migration, epoch or purpose, or on another subject", async () => {
    const { destination } = await open();
    for (const change of [{ migration: "00000000000000ab" }, { epoch: 2 }, { purpose: "urgent" }])
      await expect(ask(destination, change)).rejects.toMatchObject({ code: "wrong-state" });
    await expect(ask(destination, {}, ASKED_ON.replace(".a.b.", ".c.b."))).rejects.toMatchObject({
      code: "wrong-state",
    });
    const nonsense = destination.endpoint("direct", ASKED_ON).handle(Buffer.from("{}"), ASKED_ON);
    await expect(Effect.runPromise(nonsense)).rejects.toMatchObject({ code: "invalid-request" });
    await expect(ask(destination, { network: "another" })).rejects.toMatchObject({ code: "not-supported" });
  });

  it("that is off, or finds no port, says so", async () => {
    expect((await open({ listen: "off" })).landing.obstacle).toContain("GODWIT_DIRECT_LISTEN");
    const first = await open();
    const port = portOf(await ask(first.destination));
    expect((await open({ listen: `127.0.0.1:${port}` })).landing.obstacle).toContain("EADDRINUSE");
    expect((await open({ listen: `127.0.0.1:${port}-${port + 20}` })).landing.obstacle).toBeNull();
  });

  it("listens while somebody takes packets, and ends all connections and tokens with that", async () => {
    const { destination, landing } = await open();
    const [offer, unused] = [await ask(destination), await ask(destination)];
    const dialed = await dial(offer);
    await Effect.runPromise(landing.close);
    expect(await dialed.ended).toBe("the destination closed it, quietly");
    await expect(dial(unused)).rejects.toThrow("ECONNREFUSED");
    await expect(ask(destination)).rejects.toMatchObject({ code: "wrong-state" });
    const again = await run(destination.land(LAND, ASKED_ON));
    await send(await dial(await ask(destination)), Buffer.from("again"));
    expect(Buffer.from((await take(again, 1))[0]!.data).toString()).toBe("again");
  });

  it("closes whoever is slow to say hello", async () => {
    const { destination } = await open();
    const begun = Date.now();
    expect(await answerTo(portOf(await ask(destination)), randomBytes(10))).toHaveLength(0);
    expect(Date.now() - begun).toBeGreaterThan(HELLO_MS - 100);
  });

  it("closes at once whoever comes on top of those that say nothing, and lets others in when they are gone", async () => {
    const { destination } = await open();
    const [offer, later] = [await ask(destination), await ask(destination)];
    const silent = Array.from({ length: STRANGERS_MAX }, () => connect(portOf(offer), "127.0.0.1"));
    for (const socket of silent) {
      sockets.add(socket);
      socket.on("error", () => undefined);
    }
    await Promise.all(silent.map((socket) => once(socket, "connect")));
    await vi.waitFor(() => expect(dial(offer)).rejects.toThrow(), { timeout: 2000 });
    for (const socket of silent) socket.destroy();
    await vi.waitFor(() => dial(later), { timeout: 10_000, interval: 50 });
  });

  it("closes a connection that sends what is no frame", async () => {
    const { destination } = await open();
    const offer = await ask(destination);
    const secret = Buffer.from(offer.secret, "hex");
    const hello = helloOf({ ...CLAIM, token: offer.token }, secret);
    const got = await answerTo(portOf(offer), Buffer.concat([hello, Buffer.alloc(4, 0xff)]));
    expect(got).toEqual(welcomeOf(hello, secret));
  });

  it("stops reading when much waits, and goes on when it was taken", async () => {
    const { destination, landing } = await open();
    const dialed = await dial(await ask(destination));
    const packet = randomBytes(256 * 1024);
    const sendWhile = async (wanted: () => boolean): Promise<number> => {
      let sent = 0;
      for (let idle = 0; wanted() && idle < 400; idle++) {
        for (; dialed.outlet.hasRoom(packet.length) && wanted(); sent++, idle = 0) void send(dialed, packet);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      return sent;
    };
    const sent = await sendWhile(() => true);
    expect(sent * packet.length).toBeGreaterThanOrEqual(WAITING_BYTES_MAX);
    expect(sent * packet.length).toBeLessThan(WAITING_BYTES_MAX + 16 * 1024 ** 2);
    const taken = await take(landing, sent);
    expect(taken).toHaveLength(sent);
    expect(taken.every(({ data }) => packet.equals(data))).toBe(true);
  });

  it("wakes whoever waits for the first packet, and forgets who waits no more", async () => {
    const { destination, landing } = await open();
    const given = Effect.runFork(landing.takeAll);
    await Effect.runPromise(Fiber.interrupt(given));
    const waiting = take(landing, 1);
    await send(await dial(await ask(destination)), Buffer.from("first"));
    expect(await waiting).toHaveLength(1);
  });
});

describe("a worker's end", () => {
  const serve = async (met: (socket: Socket) => void): Promise<string> => {
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => undefined);
      met(socket);
    });
    closers.push(() => server.close());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  };
  const offerOf = (...addresses: ReadonlyArray<string>): LaneOffer => ({
    addresses,
    tls: false,
    token: "0123456789abcdef",
    secret: "ab".repeat(32),
  });
  const secret = Buffer.from("ab".repeat(32), "hex");
  const welcoming = (socket: Socket, then: () => void): void => {
    socket.once("data", (hello) => {
      socket.write(welcomeOf(hello, secret));
      then();
    });
  };

  it("sends nothing to who does not know the token, and tries the next address", async () => {
    const heard: Buffer[] = [];
    const other = await serve((socket) =>
      socket.on("data", (chunk) => {
        heard.push(chunk);
        socket.write(randomBytes(32));
      }),
    );
    const closed = await serve((socket) => socket.destroy());
    const right = await serve((socket) => welcoming(socket, () => {}));
    const { outlet } = await dial(offerOf("127.0.0.1:1", other, closed, right));
    expect(outlet.address).toBe(right);
    expect(Buffer.concat(heard)).toHaveLength(64);
    expect(Buffer.concat(heard).includes(secret)).toBe(false);
    await expect(dial(offerOf("127.0.0.1:1", other, "nonsense"))).rejects.toThrow(
      /^127\.0\.0\.1:1: .*ECONNREFUSED.*; .*does not know the token; nonsense: that is no address$/,
    );
  });

  it("gives up a destination that takes nothing, one that invents receipts, and one that goes", async () => {
    const idle = await dial(offerOf(await serve((socket) => welcoming(socket, () => socket.pause()))));
    let isDone = false;
    void send(idle, randomBytes(1000)).then(() => {
      isDone = true;
    });
    const lie = (socket: Socket): void => void setTimeout(() => socket.write(Buffer.from([9, 0, 0, 0])), 50);
    const inventing = await dial(offerOf(await serve((socket) => welcoming(socket, () => lie(socket)))));
    expect(await inventing.ended).toContain("never sent");
    const going = await dial(
      offerOf(await serve((socket) => welcoming(socket, () => socket.once("data", () => socket.resetAndDestroy())))),
    );
    void send(going, randomBytes(100));
    expect(await going.ended).toMatch(/ECONNRESET|closed/);
    expect(await idle.ended).toBe(`the destination has taken nothing for ${STALL_MS} ms`);
    expect(isDone).toBe(true);
  });

  it("gives every buffer back, also when the connection ends under it", async () => {
    const full = await dial(offerOf(await serve((socket) => welcoming(socket, () => socket.pause()))));
    const packets = Array.from({ length: 15 }, () => send(full, randomBytes(256 * 1024)));
    expect(full.outlet.hasRoom(1024 ** 2)).toBe(false);
    full.close();
    await Promise.all(packets);
  });
});
