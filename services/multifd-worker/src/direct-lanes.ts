/** The connections of this worker: one for each attempt, destination, purpose and channel that wants one and can have it. */
import { Fabric } from "@godwit/fabric";
import { networkId, type Outlet, openOutlet } from "@godwit/fabric/direct";
import {
  isMalformed,
  json,
  LaneOffer,
  type LanePurpose,
  LaneRequest,
  type Route,
  subjects,
  type WorkItem,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { Lane } from "./decisions/index.ts";
import type { Packed } from "./rooms.ts";

/** Lanes of one worker: every channel of four migrations, each purpose. What comes on top goes by NATS. */
const LANES_MAX = 3 * 4 * 255;
/** How long an answer may take, ms: a loader that applies a batch answers after it. */
const ASK_MS = 2_000;
/** How often lanes that nobody needs any more are looked for, ms. */
const SWEEP_MS = 10_000;

const requests = json(LaneRequest);
const offers = json(LaneOffer);

export interface DirectLanes {
  /** Sends the item's packet by the channel's connection, and is done with it then. False: there is none now, or it is full. */
  readonly send: (item: WorkItem, purpose: LanePurpose, route: Route, packet: Packed) => boolean;
  /**
   * A packet that should have gone by a connection went by NATS: one is asked for, unless it was just tried. Only for an item that was packed: what
   * cannot be, made up or not, opens no connection anywhere.
   */
  readonly want: (item: WorkItem, purpose: LanePurpose, route: Route) => void;
}

interface Open {
  readonly lane: Lane.Lane;
  outlet: Outlet | null;
  /** Ends the connection, or the way to it. */
  close: () => void;
  /** Forgotten: an answer that comes now opens nothing. */
  isClosed: boolean;
}

/** They end with the scope. */
export const makeDirectLanes: Effect.Effect<DirectLanes, never, Fabric | Scope.Scope> = Effect.gen(function* () {
  const fabric = yield* Fabric;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  const lanes = new Map<string, Open>();
  const network = networkId();
  const now = (): number => performance.now();

  const closeAll = (isGone: (open: Open) => boolean): void => {
    for (const [key, open] of lanes) {
      if (!isGone(open)) continue;
      open.close();
      open.outlet = null;
      open.isClosed = true;
      lanes.delete(key);
    }
  };
  yield* Effect.acquireRelease(
    Effect.sync(() => setInterval(() => closeAll(({ lane }) => Lane.isIdle(lane, now())), SWEEP_MS)),
    (sweep) =>
      Effect.sync(() => {
        clearInterval(sweep);
        closeAll(() => true);
      }),
  );

  const openFor = (key: string): Open | null => {
    const known = lanes.get(key);
    if (known !== undefined) return known;
    if (lanes.size >= LANES_MAX) return null;
    const made: Open = { lane: Lane.make(now()), outlet: null, close: () => {}, isClosed: false };
    lanes.set(key, made);
    return made;
  };

  const feed = (open: Open, event: Lane.Event, item: WorkItem, purpose: LanePurpose, route: Route): void => {
    if (open.isClosed) return;
    for (const effect of Lane.step(open.lane, event, now())) {
      switch (effect._tag) {
        case "Ask":
          run(Effect.map(ask(item, purpose, route), (answer) => feed(open, answer, item, purpose, route)));
          break;
        case "Dial":
          dial(open, effect.offer, (news) => feed(open, news, item, purpose, route), claimOf(item, purpose));
          break;
        case "Tell":
          run(told(effect, item, purpose));
      }
    }
  };
  const dial = (
    open: Open,
    offer: LaneOffer,
    feedBack: (event: Lane.Event) => void,
    claim: ReturnType<typeof claimOf>,
  ): void => {
    open.close = openOutlet(
      offer,
      { ...claim, token: offer.token },
      {
        opened: (outlet) => {
          open.outlet = outlet;
          feedBack({ _tag: "Opened", address: outlet.address });
        },
        ended: (reason, quietly) => {
          open.outlet = null;
          feedBack({ _tag: "Ended", reason, quietly });
        },
      },
    );
  };

  const ask = (item: WorkItem, purpose: LanePurpose, route: Route): Effect.Effect<Lane.Event> => {
    const subject = purpose === "devices" ? subjects.deviceDirectLane(route) : subjects.directLane(route);
    const asked = requests.encode({ ...claimOf(item, purpose), network } as LaneRequest);
    return fabric.request(subject, asked, { timeoutMs: ASK_MS }).pipe(
      Effect.map((data): Lane.Event => {
        const offer = offers.decode(data);
        if (isMalformed(offer)) return { _tag: "Refused", reason: `an offer that cannot be read: ${offer.malformed}` };
        // What NATS carries encrypted shall not leave this host in clear.
        return fabric.isEncrypted && !offer.tls
          ? { _tag: "Refused", reason: "NATS has TLS here, and the destination offers none" }
          : { _tag: "Offered", offer };
      }),
      Effect.catch((error) => {
        const reason = "reason" in error ? error.reason : error.message;
        return Effect.succeed<Lane.Event>({ _tag: "Refused", reason });
      }),
    );
  };

  return {
    want: (item, purpose, route) => {
      const open = openFor(keyOf(item, purpose, route));
      if (open !== null) feed(open, { _tag: "Wanted" }, item, purpose, route);
    },
    send: (item, purpose, route, { bytes, done }) => {
      const open = lanes.get(keyOf(item, purpose, route));
      const outlet = open?.outlet ?? null;
      if (open === undefined || outlet?.hasRoom(bytes.length) !== true) return false;
      feed(open, { _tag: "Wanted" }, item, purpose, route);
      outlet.send(bytes, done);
      return true;
    },
  };
});

/** Where it goes is a part of it: packets for one node must not find a connection that was asked of another. */
const keyOf = ({ migration, epoch, channel }: WorkItem, purpose: LanePurpose, { destination }: Route): string =>
  `${migration} ${epoch} ${destination} ${purpose} ${channel}`;

const claimOf = ({ migration, epoch, channel }: WorkItem, purpose: LanePurpose) => ({
  migration,
  epoch,
  channel,
  purpose,
});

const told = (
  { what, why }: Extract<Lane.Effect, { _tag: "Tell" }>,
  { migration, epoch, channel }: WorkItem,
  purpose: LanePurpose,
): Effect.Effect<void> =>
  Effect.logInfo(`channel ${channel} (${purpose}) ${what}: ${why}`).pipe(Effect.annotateLogs({ migration, epoch }));
