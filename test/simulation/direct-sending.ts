/** The direct lane of a simulated worker: its real decisions, connections that break now and then, and NATS for what they cannot take. */
import type { SimNetwork, SimStream } from "@godwit/fabric/simulation";
import { Lane } from "@godwit/multifd-worker/decisions";
import type { LaneOffer } from "@godwit/protocol";
import { LOADER } from "./names.ts";
import { between } from "./random-times.ts";
import type { SimPacket } from "./worker-actor.ts";

/** How long it takes to be offered something, and to dial it, ms; and how often each comes to nothing. */
const ANSWER_MS = 8;
const REFUSED_RATE = 0.1;
const UNDIALED_RATE = 0.2;
/** How soon a worker knows that its connection is broken, ms: after a stall at the latest. */
const NOTICE_MS = 2000;
/** What stands in it has no meaning here. */
const OFFER: LaneOffer = { addresses: ["loader:1"], tls: false, token: "0".repeat(16), secret: "0".repeat(64) };

interface Way {
  readonly lane: Lane.Lane;
  stream: SimStream | null;
}

/** Of one life of the worker. A stream's subject is that of the packets as messages, so the loader takes them as it takes those. */
export const makeDirectSending = (
  network: SimNetwork,
  name: string,
): ((subject: string, packet: SimPacket) => void) => {
  const ways = new Map<string, Way>();

  const feed = (way: Way, event: Lane.Event): void => {
    for (const effect of Lane.step(way.lane, event, network.now())) {
      if (effect._tag === "Ask")
        network.timer(name, between(network, 0.2, ANSWER_MS), () => {
          const isThere = network.isConnected(LOADER) && network.isConnected(name);
          const isRefused = !isThere || network.random() < REFUSED_RATE;
          feed(way, isRefused ? { _tag: "Refused", reason: "it is not there" } : { _tag: "Offered", offer: OFFER });
        });
      if (effect._tag === "Dial") network.timer(name, between(network, 0.2, ANSWER_MS), () => dialed(way));
      if (effect._tag === "Tell") network.trace("lane", name, `${effect.what}: ${effect.why}`);
    }
  };
  const dialed = (way: Way): void => {
    if (network.random() < UNDIALED_RATE) return feed(way, { _tag: "Ended", reason: "no answer", quietly: false });
    way.stream = network.stream(name, LOADER, NOTICE_MS, () => {
      way.stream = null;
      feed(way, { _tag: "Ended", reason: "it broke", quietly: false });
    });
    feed(way, { _tag: "Opened", address: "loader:1" });
  };

  return (subject, packet) => {
    const key = `${packet.epoch} ${subject}`;
    const way = ways.get(key) ?? { lane: Lane.make(network.now()), stream: null };
    ways.set(key, way);
    feed(way, { _tag: "Wanted" });
    if (way.stream === null) return network.send(name, subject, packet);
    way.stream.send(subject, packet);
  };
};
