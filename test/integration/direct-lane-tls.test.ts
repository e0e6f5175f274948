/** The direct lane where NATS has TLS and lets in godwit's users alone: what passes is encrypted, and only a worker of the source gets in. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { networkId, openOutlet } from "@godwit/fabric/direct";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import { inboxPrefixOf, json, LaneOffer, type MigrationInfo, subjects } from "@godwit/protocol";
import { connect as connectNats, credsAuthenticator } from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, it } from "vitest";
import { addNode, initialize } from "../../services/cli/src/credentials/folder.ts";
import { type Detour, openDetour } from "./direct-detour.ts";
import { HELD, letGo } from "./held.ts";
import { isMidway } from "./journey.ts";
import { expectMoved } from "./outcome.ts";
import { patternsOf } from "./page-patterns.ts";
import { MIB, openWorld, type World } from "./world.ts";

const GUEST = { memoryBytes: 16 * MIB, workingSetBytes: MIB, dirtyRateBytesPerSecond: MIB };

let directory: string;
let nats: LocalNats;
let detour: Detour;
let world: World;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "godwit-direct-tls-"));
  const credentials = join(directory, "credentials");
  await initialize(credentials, { hosts: ["localhost", "127.0.0.1"], serverDirectory: null });
  for (const node of ["a", "b"]) await addNode(credentials, node, []);
  const config = readFileSync(join(credentials, "server", "godwit-auth.conf"), "utf8");
  nats = await startNats({ storeDir: join(directory, "nats"), config });
  detour = await openDetour();
  world = await openWorld({ natsUrl: nats.url, credentials, directOf: detour.directOf });
});
afterAll(async () => {
  await world?.close();
  await detour?.close();
  await nats?.stop();
  rmSync(directory, { recursive: true, force: true });
});

const directOf = ({ channels = [] }: MigrationInfo): number =>
  channels.reduce((sum, { lanes = [] }) => sum + lanes.reduce((all, { direct }) => all + direct, 0), 0);
const foundIn = (bytes: Buffer, patterns: ReadonlyArray<Buffer>): number =>
  patterns.filter((pattern) => bytes.includes(pattern)).length;

it.each([
  ["in TLS alone", false],
  ["sealed besides", true],
])("a guest's memory passes %s, and nobody on the way sees a page", async (name, encryption) => {
  const spec = await world.startGuest({ name: name.replaceAll(" ", "-"), ...GUEST });
  const patterns = await patternsOf(world, spec, GUEST.workingSetBytes);
  expect(patterns.length).toBeGreaterThan(10);
  const seen = detour.record();
  const journey = await world.migrate(spec.name, "b", {
    parameters: { ...HELD, lane: "direct" },
    capabilities: { encryption, verify: true },
  });
  await journey.until((info) => isMidway(info) && directOf(info) > 4);
  await letGo(world, journey);
  const end = await expectMoved(world, journey, "b");
  expect(end).toMatchObject({ attempts: 1, verify: [{ "pages-damaged": 0 }] });
  const passed = Buffer.concat(seen);
  // What was sent before there was a connection went by NATS, on a busy machine more than half.
  expect(passed.length).toBeGreaterThan(GUEST.memoryBytes / 8);
  expect(foundIn(passed, patterns)).toBe(0);
  // Neither a hello, nor a packet, sealed or not.
  for (const magic of ["GWL1", "GWP1", "GWS1"]) expect(passed.includes(magic)).toBe(false);
});

it("a worker's user gets a token for its own node's migrations, and comes in with TLS alone", async () => {
  const offers = json(LaneOffer);
  const credentials = join(directory, "credentials");
  const worker = await connectNats({
    servers: nats.url,
    authenticator: credsAuthenticator(readFileSync(join(credentials, "nodes", "a", "multifd-worker.creds"))),
    tls: { caFile: join(credentials, "ca.pem") },
    inboxPrefix: inboxPrefixOf({ role: "multifd-worker", node: "a" }),
  });
  try {
    await world.startGuest({ name: "asked", ...GUEST });
    const journey = await world.migrate("asked", "b", { parameters: { ...HELD, lane: "auto" } });
    await journey.until(isMidway);
    const claim = { migration: journey.id, epoch: 1, channel: 0, purpose: "ram" } as const;
    const ask = async (source: string): Promise<LaneOffer> => {
      const subject = subjects.directLane({ migration: journey.id, source, destination: "b" });
      const answer = await worker.request(subject, JSON.stringify({ ...claim, network: networkId() }));
      return offers.decode(answer.data) as LaneOffer;
    };
    const outcomeOf = (offer: LaneOffer): Promise<string> =>
      new Promise((resolve) => {
        const close = openOutlet(
          offer,
          { ...claim, token: offer.token },
          {
            opened: () => {
              resolve("open");
              close();
            },
            ended: resolve,
          },
        );
      });
    const offer = await ask("a");
    expect(offer.tls).toBe(true);
    expect(await outcomeOf({ ...offer, tls: false })).not.toBe("open");
    expect(await outcomeOf({ ...offer, secret: "00".repeat(32) })).not.toBe("open");
    expect(await outcomeOf(offer)).toBe("open");
    // NATS does not carry its question about another node's.
    await expect(ask("c")).rejects.toThrow(/Permissions Violation|TIMEOUT|timeout/i);
    await letGo(world, journey);
    await expectMoved(world, journey, "b");
  } finally {
    await worker.close();
  }
});
