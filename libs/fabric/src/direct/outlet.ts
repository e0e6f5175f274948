/**
 * The sending end of one connection: dials what was offered, proves its token, and takes packets. Whoever uses it never waits: a packet that
 * cannot go now goes otherwise.
 */
import { connect, type Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { connect as connectTls } from "node:tls";
import {
  LANE_LENGTH_BYTES,
  LANE_PROOF_BYTES,
  LANE_RECEIPT_BYTES,
  type LaneClaim,
  type LaneOffer,
} from "@godwit/protocol";
import { splitAddress } from "./addresses.ts";
import { helloOf, isTrueWelcome } from "./proof.ts";
import { LANE_TLS } from "./tls.ts";

/** One address, until its kernel answers, ms; behind a wall that swallows packets the next one is tried. */
const CONNECT_MS = 1_500;
/** From then on to the welcome, ms: the process that listens there may be busy. Nothing waits for it, since packets go by NATS meanwhile. */
const WELCOME_MS = 5_000;
/** So long may packets be unreceipted before the connection counts as broken, ms. A loader that is busy takes some hundred. */
export const STALL_MS = 2_000;
/** How often that is looked at, ms. */
const LOOK_MS = 250;
/** Unreceipted bytes of one connection: a channel's window twice over, for items that go again. What comes on top goes otherwise. */
export const UNRECEIPTED_BYTES_MAX = 4 * 1024 ** 2;

export interface Outlet {
  readonly address: string;
  /** Whether one more packet of that length may go. */
  readonly hasRoom: (bytes: number) => boolean;
  /**
   * Sends a packet, which must stand LANE_LENGTH_BYTES behind the beginning of its memory or later: its length goes there. The bytes must stay as they
   * are until `done`, which is called once.
   */
  readonly send: (packet: Uint8Array, done: () => void) => void;
}

export interface OutletEvents {
  readonly opened: (outlet: Outlet) => void;
  /** It is over, or never came to be; once, and not after it was closed here. `quietly`: the destination had taken everything that was sent. */
  readonly ended: (reason: string, quietly: boolean) => void;
}

/** Dials; returns what ends it, at whatever point it is. */
export const openOutlet = (offer: LaneOffer, claim: LaneClaim, events: OutletEvents): (() => void) => {
  let isOver = false;
  let close = (): void => {};
  const end = (reason: string, quietly: boolean): void => {
    if (isOver) return;
    isOver = true;
    close();
    events.ended(reason, quietly);
  };
  const tryNext = (left: ReadonlyArray<string>, failures: ReadonlyArray<string>): void => {
    const [address, ...others] = left;
    if (address === undefined) return end(failures.join("; "), false);
    close = dial(address, offer, claim, {
      failed: (reason) => {
        if (!isOver) tryNext(others, [...failures, `${address}: ${reason}`]);
      },
      welcomed: (socket) => {
        if (isOver) return void socket.destroy();
        const sending = sendOn(socket, address, end);
        close = sending.close;
        events.opened(sending.outlet);
      },
    });
  };
  tryNext(offer.addresses, []);
  return () => {
    isOver = true;
    close();
  };
};

interface Dialing {
  readonly failed: (reason: string) => void;
  /** Nobody listens to the socket any more. */
  readonly welcomed: (socket: Socket) => void;
}

/** One address. Calls one of the two once; the function returned makes that neither. */
const dial = (address: string, offer: LaneOffer, claim: LaneClaim, { failed, welcomed }: Dialing): (() => void) => {
  const place = splitAddress(address);
  if (place === undefined) {
    queueMicrotask(() => failed("that is no address"));
    return () => {};
  }
  const secret = Buffer.from(offer.secret, "hex");
  const hello = helloOf(claim, secret);
  const socket = offer.tls ? dialTls(place, offer.token, secret) : connect({ ...place, noDelay: true });
  let answer = Buffer.alloc(0);
  const giveUp = (): void => {
    clearTimeout(late);
    stopHearing();
    socket.destroy();
  };
  const fail = (reason: string): void => {
    giveUp();
    failed(reason);
  };
  let late = setTimeout(() => fail(`no connection within ${CONNECT_MS} ms`), CONNECT_MS);
  socket.once("connect", () => {
    clearTimeout(late);
    late = setTimeout(() => fail(`no welcome within ${WELCOME_MS} ms`), WELCOME_MS);
  });
  socket.once(offer.tls ? "secureConnect" : "connect", () => socket.write(hello));
  const stopHearing = hear(socket, {
    error: (error: Error) => fail(error.message),
    close: () => fail("it was closed"),
    data: (chunk: Buffer) => {
      answer = Buffer.concat([answer, chunk]);
      if (answer.length < LANE_PROOF_BYTES) return;
      if (!isTrueWelcome(answer, hello, secret)) return fail("who listens there does not know the token");
      clearTimeout(late);
      stopHearing();
      welcomed(socket);
    },
  });
  return giveUp;
};

// biome-ignore lint/suspicious/noExplicitAny: the arguments of an event are what Node says they are
type Listeners = Readonly<Record<string, (argument: any) => void>>;

/** Listens until the function returned is called; then errors are nobody's. The socket's own listeners stay. */
const hear = (socket: Socket, listeners: Listeners): (() => void) => {
  const all = Object.entries(listeners);
  for (const [event, listener] of all) socket.on(event, listener);
  return () => {
    for (const [event, listener] of all) socket.off(event, listener);
    socket.on("error", () => undefined);
  };
};

const dialTls = (place: { readonly host: string; readonly port: number }, identity: string, psk: Buffer): Socket =>
  connectTls({
    ...place,
    ...LANE_TLS,
    pskCallback: () => ({ identity, psk }),
    // There is no certificate: who knows the secret is who was asked.
    checkServerIdentity: () => undefined,
  }).setNoDelay(true);

const sendOn = (socket: Socket, address: string, ended: OutletEvents["ended"]) => {
  /** Lengths of packets that no receipt has come for, oldest first from `first` on. */
  let lengths: number[] = [];
  let first = 0;
  let unreceipted = 0;
  /** Packets told as taken, modulo 2^32. */
  let taken = 0;
  let movedAt = performance.now();
  let receipt = Buffer.alloc(0);
  const end = (reason: string): void => ended(reason, unreceipted === 0);

  const receive = (chunk: Buffer): void => {
    receipt = Buffer.concat([receipt, chunk]);
    const whole = receipt.length - (receipt.length % LANE_RECEIPT_BYTES);
    if (whole === 0) return;
    const told = receipt.readUInt32LE(whole - LANE_RECEIPT_BYTES);
    receipt = receipt.subarray(whole);
    const news = (told - taken) >>> 0;
    if (news > lengths.length - first) return end("it was told of packets that were never sent");
    for (const last = first + news; first < last; first++) unreceipted -= lengths[first]!;
    taken = told;
    movedAt = performance.now();
    if (first * 2 > lengths.length) {
      lengths = lengths.slice(first);
      first = 0;
    }
  };
  const stopHearing = hear(socket, {
    data: receive,
    error: (error: Error) => end(error.message),
    end: () => end("the destination closed it"),
    close: () => end("it was closed"),
  });
  const look = setInterval(() => {
    if (unreceipted > 0 && performance.now() - movedAt > STALL_MS)
      end(`the destination has taken nothing for ${STALL_MS} ms`);
  }, LOOK_MS);
  look.unref();
  const outlet: Outlet = {
    address,
    hasRoom: (bytes) => unreceipted + bytes <= UNRECEIPTED_BYTES_MAX,
    send: (packet, done) => {
      const frame = Buffer.from(
        packet.buffer as ArrayBuffer,
        packet.byteOffset - LANE_LENGTH_BYTES,
        packet.length + LANE_LENGTH_BYTES,
      );
      frame.writeUInt32LE(packet.length);
      if (unreceipted === 0) movedAt = performance.now();
      lengths.push(packet.length);
      unreceipted += packet.length;
      socket.write(frame, () => done());
    },
  };
  const close = (): void => {
    clearInterval(look);
    stopHearing();
    socket.destroy();
  };
  return { outlet, close };
};
