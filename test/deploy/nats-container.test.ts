// What is tried elsewhere on a server of this machine's own, on one in a container: the fabric as a whole, and migrations.

import { bucketOf } from "@godwit/protocol";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CONFORMANCE_BUCKETS } from "../../libs/fabric/src/conformance/bucket.ts";
import { worldOn } from "../../libs/fabric/src/conformance/nats-world.ts";
import { fabricConformance } from "../../libs/fabric/src/fabric.conformance.ts";
import { expectMoved } from "../integration/outcome.ts";
import { MIB, openWorld, type World, workerOf } from "../integration/world.ts";
import { natsImage } from "./docker.ts";
import { startNatsContainer } from "./nats-container.ts";

const found = natsImage();
const image = "image" in found ? found.image : "";
const title =
  "image" in found ? `NATS in a container of ${found.image}` : `NATS in a container (skipped: ${found.missing})`;

describe.skipIf(image === "")(title, () => {
  fabricConformance("it", async () => {
    const nats = await startNatsContainer(image, CONFORMANCE_BUCKETS.map(bucketOf));
    return worldOn(nats.url, nats.close);
  });

  describe("migrations over it", () => {
    let nats: Awaited<ReturnType<typeof startNatsContainer>> | undefined;
    let world: World | undefined;
    beforeAll(async () => {
      nats = await startNatsContainer(image);
      world = await openWorld({ natsUrl: nats.url });
    });
    afterAll(async () => {
      await world?.close();
      await nats?.close();
    });

    it("move a guest there and back, once while a worker is killed", async () => {
      if (world === undefined) throw new Error("there is no world");
      await world.startGuest({ name: "vm1", memoryBytes: 64 * MIB });
      await expectMoved(world, await world.migrate("vm1", "b"), "b");
      const back = await world.migrate("vm1", "a", { parameters: { "max-bandwidth": 8 * MIB } });
      await back.until((info) => info.status === "active" && (info.ram?.transferred ?? 0) > 0);
      await world.kill(workerOf("b", 0));
      await expectMoved(world, back, "a");
      expect((await back.end).attempts).toBe(1);
    });
  });
});
