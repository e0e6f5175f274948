import { bucketOf } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bucketConformance, CONFORMANCE_BUCKETS } from "../conformance/bucket.ts";
import { announceInProcess, joinNatsWith, run, startTestNats } from "../conformance/nats-world.ts";
import { freePorts } from "../local-nats-cluster.ts";
import { readBuckets, setUpBuckets } from "./bucket-setup.ts";
import type { NatsOptions } from "./connection.ts";
import { openObjectStore, setUpObjectStore } from "./object-store.ts";

/** The domain is up once its API answers through the leaf node's link, which comes up after the servers, ms. */
const LINK_MS = 20_000;

type Started = Awaited<ReturnType<typeof startTestNats>>;

describe("buckets in a JetStream domain, reached through a leaf node", () => {
  let hub: Started;
  let branch: Started;
  const at = ({ server }: Started, jsDomain?: string): NatsOptions => ({
    servers: server.url,
    name: "leaf node test",
    ...(jsDomain === undefined ? {} : { jsDomain }),
  });
  beforeAll(async () => {
    const [port = 0] = await freePorts(1);
    const leafnodes = `leafnodes { listen: "127.0.0.1:${port}" }`;
    hub = await startTestNats({ jsDomain: "hub", config: leafnodes });
    branch = await startTestNats({
      jetstream: false,
      config: `leafnodes { reconnect: 1, remotes: [{ url: "nats-leaf://127.0.0.1:${port}" }] }`,
    });
    // Made from the far side, and patiently: that the link is up is told to nobody else.
    await run(setUpBuckets(at(branch, "hub"), CONFORMANCE_BUCKETS.map(bucketOf)).pipe(Effect.timeout(LINK_MS)));
  });
  afterAll(async () => {
    await branch?.close();
    await hub?.close();
  });

  let joined = 0;
  bucketConformance(() => ({
    run,
    // One here, one there.
    join: (actor) => joinNatsWith({ ...at(joined++ % 2 === 0 ? branch : hub, "hub"), name: actor }),
    announceElsewhere: (member) => announceInProcess(branch.server.url, member),
    slackMs: 0,
    close: async () => {},
  }));

  it("are read and written there as on their own servers, and objects, too", () =>
    run(
      Effect.gen(function* () {
        const own = yield* readBuckets(at(hub), [bucketOf("cas")]);
        expect(yield* readBuckets(at(branch, "hub"), [bucketOf("cas")])).toEqual(own);
        expect(yield* setUpObjectStore(at(branch, "hub"), "checkpoints")).toBe("made");
        expect(yield* setUpObjectStore(at(hub), "checkpoints")).toBe("kept");
        const content = new Uint8Array(300_000).fill(7);
        const far = yield* openObjectStore(at(branch, "hub"), "checkpoints");
        yield* far.put("vm1", content);
        expect(yield* (yield* openObjectStore(at(hub), "checkpoints")).get("vm1")).toEqual(content);
        expect(yield* far.get("vm1")).toEqual(content);
      }),
    ));

  it("are not found without the domain, which is final, nor in one that does not answer, which may pass", () =>
    run(
      Effect.gen(function* () {
        const none = yield* Effect.flip(readBuckets(at(branch), [bucketOf("cas")]));
        expect(none).toMatchObject({ code: "nats-no-jetstream", retryable: false });
        const another = yield* Effect.flip(readBuckets(at(branch, "elsewhere"), [bucketOf("cas")]));
        expect(another).toMatchObject({ code: "js-domain-unreachable", retryable: true });
        expect(another.reason).toContain("no JetStream of domain elsewhere answers");
      }),
    ));
});
