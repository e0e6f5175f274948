/** A worker's connections, to a destination in this process; NATS between them is a function. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { Fabric } from "@godwit/fabric";
import { type DestinationOptions, type Landing, makeDirectDestination } from "@godwit/fabric/direct";
import { GodwitError, json, LaneOffer, PACKET_PAGES_MAX, PAGE_BYTES, subjects, type WorkItem } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as References from "effect/References";
import * as Scope from "effect/Scope";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type DirectLanes, makeDirectLanes } from "./direct-lanes.ts";

const ROUTE = { migration: "00000000000000aa", source: "a", destination: "b" };
const item: WorkItem = {
  ...{ kind: "pages", migration: ROUTE.migration, epoch: 1, round: 1, item: 0, channel: 3, channelEpoch: 1 },
  ...{
    compression: "none",
    level: 0,
    deadline: 0,
    lane: "direct",
    block: 0,
    fileOffset: 0,
    zeroPages: "none",
    xbzrle: null,
  },
  runs: Uint32Array.of(0, 1),
};
const BYTES = PACKET_PAGES_MAX * PAGE_BYTES;

let scope: Scope.Closeable;
beforeEach(() => {
  scope = Effect.runSync(Scope.make());
});
afterEach(() => Effect.runPromise(Scope.close(scope, Exit.void)));
const run = <A, E>(work: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
  Effect.runPromise(
    work.pipe(Effect.provideService(Scope.Scope, scope), Effect.provideService(References.MinimumLogLevel, "None")),
  );

interface Pair {
  readonly lanes: DirectLanes;
  readonly landing: Landing;
  /** Questions so far. */
  readonly asked: () => number;
}
const open = async (options: Partial<DestinationOptions> = {}, isEncrypted = false): Promise<Pair> => {
  const listen = { host: "127.0.0.1", firstPort: 0, lastPort: 0 };
  const destination = await run(
    makeDirectDestination({ actor: "loader", listen, announced: [], tls: false, ...options }),
  );
  const subject = subjects.directLane(ROUTE);
  const landing = await run(
    destination.land(
      { route: ROUTE, epoch: 1, purpose: "ram", subjectOf: (channel) => subjects.channel(ROUTE, channel) },
      subject,
    ),
  );
  let asked = 0;
  const fabric = {
    isEncrypted,
    request: (on: string, data: Uint8Array) => {
      asked++;
      return destination.endpoint("direct-lane", subject).handle(data, on);
    },
  } as unknown as Fabric["Service"];
  const lanes = await run(Effect.provideService(makeDirectLanes, Fabric, fabric));
  return { lanes, landing, asked: () => asked };
};
/** A packet of that many bytes, each of them `fill`; false: it goes by NATS. */
const send = ({ lanes }: Pair, fill: number, bytes = BYTES, channel = item.channel, route = ROUTE): boolean => {
  const packet = { bytes: new Uint8Array(4 + bytes).fill(fill).subarray(4), done: () => undefined };
  const isSent = lanes.send({ ...item, channel }, "ram", route, packet);
  if (!isSent) lanes.want({ ...item, channel }, "ram", route);
  return isSent;
};
const opened = async (pair: Pair): Promise<Pair> => {
  await vi.waitFor(() => expect(send(pair, 0)).toBe(true), { timeout: 10_000, interval: 5 });
  return pair;
};

describe("a worker's connections", () => {
  it("are asked for when they are wanted first, and take packets of all sizes once they are there", async () => {
    const pair = await open();
    expect([send(pair, 1), send(pair, 1), pair.asked()]).toEqual([false, false, 1]);
    await opened(pair);
    for (const bytes of [1, 5000, 40_000, BYTES]) expect(send(pair, 7, bytes)).toBe(true);
    const sizes: number[] = [];
    while (sizes.length < 5)
      for (const { subject, data } of await run(pair.landing.takeAll)) {
        expect(subject).toBe(subjects.channel(ROUTE, item.channel));
        expect(new Set(data).size).toBe(1);
        sizes.push(data.length);
      }
    expect(sizes.slice(1)).toEqual([1, 5000, 40_000, BYTES]);
    expect(pair.asked()).toBe(1);
  });

  it("are one for each channel", async () => {
    const pair = await opened(await open());
    expect(send(pair, 0, 100, 4)).toBe(false);
    await vi.waitFor(() => expect(send(pair, 0, 100, 4)).toBe(true), { timeout: 10_000, interval: 5 });
    expect(pair.asked()).toBe(2);
  });

  it("are one for each destination: what goes to one node does not go to another that was asked before", async () => {
    const pair = await opened(await open());
    expect(send(pair, 0, 100, item.channel, { ...ROUTE, destination: "c" })).toBe(false);
    expect(pair.asked()).toBe(2);
  });

  it("say when they are full, and take more once the destination has taken some", async () => {
    const pair = await opened(await open());
    let sent = 0;
    // Within a turn of the event loop nothing is receipted.
    while (send(pair, 1)) sent++;
    expect(sent).toBeGreaterThan(8);
    expect(sent * BYTES).toBeLessThan(5 * 1024 ** 2);
    await vi.waitFor(() => expect(send(pair, 1)).toBe(true), { timeout: 10_000, interval: 5 });
  });

  it("are not there any more when the destination has closed them, and are asked for again after a while", async () => {
    const pair = await opened(await open());
    await run(pair.landing.close);
    await vi.waitFor(() => expect(send(pair, 0)).toBe(false), { timeout: 10_000, interval: 5 });
    await vi.waitFor(
      () => {
        send(pair, 0);
        expect(pair.asked()).toBe(2);
      },
      { timeout: 10_000, interval: 50 },
    );
  });
});

describe("there is none", () => {
  const staysOff = async (pair: Pair): Promise<void> => {
    for (let n = 0; n < 20; n++) {
      expect(send(pair, 0)).toBe(false);
      // The answer comes within turns; after a while it would be asked again.
      await nextTurn();
    }
    expect(pair.asked()).toBe(1);
  };

  it("where the destination takes none", async () => staysOff(await open({ listen: null })));

  it("in clear, where this worker's NATS is encrypted", async () => {
    await staysOff(await open({}, true));
    await opened(await open({ tls: true }, true));
  });

  it("where the destination does not answer, or answers nonsense", async () => {
    const answers: ReadonlyArray<Effect.Effect<Uint8Array, GodwitError>> = [
      Effect.fail(new GodwitError({ code: "internal", actor: "loader", step: "x", reason: "broken" })),
      Effect.succeed(new Uint8Array(3)),
      Effect.sync(() =>
        json(LaneOffer).encode({ addresses: ["nowhere"], tls: false, token: "0".repeat(16), secret: "0".repeat(64) }),
      ),
    ];
    for (const answer of answers) {
      let asked = 0;
      const request = () => {
        asked++;
        return answer;
      };
      const fabric = { isEncrypted: false, request } as unknown as Fabric["Service"];
      const lanes = await run(Effect.provideService(makeDirectLanes, Fabric, fabric));
      await staysOff({ lanes, landing: null as never, asked: () => asked });
    }
  });
});
