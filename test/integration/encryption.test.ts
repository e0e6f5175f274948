/** Capability `encryption` with real processes: what somebody who reads everything on the broker sees, and what they can do with it. */
import { mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BuiltinSpec } from "@godwit/guest";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeAccount } from "../../libs/encryption/src/testing/account.ts";
import { startPostcopy } from "../../services/cli/src/client.ts";
import { issueCredentials } from "./credentials.ts";
import { HELD, letGo } from "./held.ts";
import { isMidway, type Journey } from "./journey.ts";
import { expectMoved, expectStayed } from "./outcome.ts";
import { patternsOf } from "./page-patterns.ts";
import { joinAsStranger, type Overheard, type Stranger } from "./stranger.ts";
import { device, moveWithDevices } from "./vfio-devices.ts";
import { eventually, killAndAwaitRestart, loaderOf, MIB, openWorld, senderOf, type World, workerOf } from "./world.ts";

const ENCRYPTED = { capabilities: { encryption: true } };
const WORKING_SET = MIB;

let credentials: string;
let credentialsOf: (node: string) => string;
let world: World;
let stranger: Stranger;
beforeAll(async () => {
  credentials = mkdtempSync(join(tmpdir(), "godwit-credentials-"));
  credentialsOf = issueCredentials(credentials, ["a", "b"]);
  world = await openWorld({ credentialsOf: (node) => (node === "up" ? undefined : credentialsOf(node)) });
  stranger = await joinAsStranger(world, "godwit.>");
});
afterAll(async () => {
  await stranger?.close();
  await world?.close();
  rmSync(credentials, { recursive: true, force: true });
});

const startGuest = (name: string): Promise<BuiltinSpec> =>
  world.startGuest({ name, memoryBytes: 8 * MIB, workingSetBytes: WORKING_SET, dirtyRateBytesPerSecond: 3 * MIB });

const foundIn = (messages: ReadonlyArray<Overheard>, patterns: ReadonlyArray<Buffer>): number =>
  patterns.filter((pattern) => messages.some(({ data }) => Buffer.from(data.buffer).includes(pattern))).length;

/** Of its multifd channels, or of another family of subjects. */
const packetsOf = ({ id }: Journey, family = /\.ch\.\d+$/): ReadonlyArray<Overheard> =>
  stranger.heard.filter(({ subject }) => subject.includes(id) && family.test(subject));
const magicOf = ({ data }: Overheard): string => Buffer.from(data.subarray(0, 4)).toString();
const magics = (packets: ReadonlyArray<Overheard>): ReadonlyArray<string> => [...new Set(packets.map(magicOf))];

const begin = async (name: string): Promise<Journey> => {
  await startGuest(name);
  const journey = await world.migrate(name, "b", { ...ENCRYPTED, parameters: HELD });
  await journey.until(isMidway);
  await eventually("a packet was overheard", () => packetsOf(journey).length > 0);
  return journey;
};
const sayAgain = async (
  packets: ReadonlyArray<Overheard>,
  change: (data: Uint8Array) => Uint8Array = (data) => data,
) => {
  for (const { subject, data } of packets) {
    stranger.say(subject, change(data));
    await stranger.flush();
  }
};
/** As if it were a packet that has not come yet: one of 4,096 packets later. */
const unseen = (data: Uint8Array): Uint8Array => {
  const bytes = data.slice();
  bytes[21]! += 16;
  return bytes;
};
const flipped = (data: Uint8Array): Uint8Array => {
  const bytes = unseen(data);
  bytes[bytes.length >> 1]! ^= 1;
  return bytes;
};
const refusedBy = (journey: Journey) => journey.seen.at(-1)?.encryption?.["refused-packets"];

describe("who reads all that NATS carries", () => {
  it("finds the guest's memory in it without encryption, and nothing of it with encryption", async () => {
    const spec = await startGuest("seen");
    const patterns = await patternsOf(world, spec, WORKING_SET);
    expect(patterns.length).toBeGreaterThan(10);
    const plain = await world.migrate("seen", "b", { parameters: { "max-bandwidth": 0 } });
    expect((await expectMoved(world, plain, "b")).encryption).toBeUndefined();
    // Some it may have written again meanwhile.
    expect(foundIn(packetsOf(plain), patterns)).toBeGreaterThan(patterns.length * 0.8);
    expect(magics(packetsOf(plain))).toEqual(["GWP1"]);

    const before = stranger.heard.length;
    const sealed = await world.migrate("seen", "a", { ...ENCRYPTED, parameters: { "max-bandwidth": 0 } });
    const end = await expectMoved(world, sealed, "a");
    expect(end.encryption).toEqual({ cipher: "aes-256-gcm", "refused-packets": { replayed: 0, forged: 0 } });
    expect(packetsOf(sealed).length).toBeGreaterThan(20);
    expect(magics(packetsOf(sealed))).toEqual(["GWS1"]);
    expect(foundIn(stranger.heard.slice(before), patterns)).toBe(0);
    // The keys have gone with the migration, at both ends.
    for (const [node, folder] of [
      ["b", "sealing"],
      ["a", "incoming"],
    ] as const) {
      const directory = join(world.cluster.settingsOf(node).runtimeDirectory, folder);
      await eventually(`${directory} is empty`, () => readdirSync(directory).length === 0);
    }
  });

  it("finds no state of a VFIO device in it, either", async () => {
    const spec = await world.startGuest({ name: "device", memoryBytes: 4 * MIB, devices: [device("nic")] });
    const from = stranger.heard.length;
    await moveWithDevices(world, spec, "b", ENCRYPTED);
    const packets = stranger.heard.slice(from).filter(({ subject }) => /\.(ch|dev)\.\d+$/.test(subject));
    expect(packets.filter(({ subject }) => subject.includes(".dev.")).length).toBeGreaterThan(10);
    expect(magics(packets)).toEqual(["GWS1"]);
  });
});

describe("who says again what was said, or says it otherwise", () => {
  it("is refused and counted, also when a worker dies meanwhile, and the guest arrives as it was", async () => {
    const journey = await begin("replayed");
    await world.kill(workerOf("a", 0));
    const captured = packetsOf(journey).slice(0, 12);
    await sayAgain(captured);
    await sayAgain(captured, unseen);
    await sayAgain(captured, flipped);
    await sayAgain(captured, (data) => unseen(data).subarray(0, data.length - 1));
    // As they would be without encryption.
    await sayAgain(captured, (data) => data.subarray(40));
    const counted = ({ encryption }: { readonly encryption?: Journey["seen"][number]["encryption"] }) =>
      (encryption?.["refused-packets"].replayed ?? 0) >= captured.length &&
      (encryption?.["refused-packets"].forged ?? 0) >= captured.length * 4;
    await journey.until(counted);
    await letGo(world, journey);
    const end = await expectMoved(world, journey, "b");
    expect(end.attempts).toBe(1);
    expect(end.verify).toMatchObject([{ "pages-damaged": 0 }]);
    // Of a kind, the log hears once.
    const told = world
      .log()
      .split("\n")
      .filter((line) => line.includes("a packet was refused") && line.includes(journey.id));
    expect(told.length).toBeLessThanOrEqual(2);
  });

  it("changes nothing at a loader that was restarted, which goes on with its key", async () => {
    const journey = await begin("resumed");
    const captured = packetsOf(journey).slice(0, 12);
    await killAndAwaitRestart(world, loaderOf("b"));
    await sayAgain(captured);
    await letGo(world, journey);
    await sayAgain(captured);
    const end = await expectMoved(world, journey, "b");
    expect(end.attempts).toBe(1);
    expect(end.verify).toMatchObject([{ "pages-damaged": 0 }]);
  });

  it("changes nothing after a RAM sender was restarted: the next attempt has another key", async () => {
    const journey = await begin("again");
    const captured = packetsOf(journey).slice(0, 12);
    await killAndAwaitRestart(world, senderOf("a"));
    await journey.until(({ attempts, status }) => attempts === 2 && status === "active");
    await sayAgain(captured);
    await journey.until(() => (refusedBy(journey)?.forged ?? 0) >= captured.length);
    await letGo(world, journey);
    await expectMoved(world, journey, "b");
  });
});

describe("a postcopy that is sealed", () => {
  it("brings every page, and goes on with its key after its RAM sender was restarted", async () => {
    await world.startGuest({
      name: "late",
      memoryBytes: 48 * MIB,
      workingSetBytes: 32 * MIB,
      dirtyRateBytesPerSecond: 64 * MIB,
    });
    const journey = await world.migrate("late", "b", {
      parameters: { "max-bandwidth": 32 * MIB, "downtime-limit": 20, "max-postcopy-bandwidth": 16 * MIB },
      capabilities: { encryption: true, "postcopy-ram": true, "postcopy-preempt": true },
    });
    await journey.until(({ ram }) => (ram?.["dirty-sync-count"] ?? 0) >= 2);
    await world.run(startPostcopy({ migration: journey.id }));
    await journey.until(({ status }) => status === "postcopy-active");
    await killAndAwaitRestart(world, senderOf("a"));
    const end = await expectMoved(world, journey, "b");
    expect(end["postcopy-requests"]).toBeGreaterThan(0);
    const urgent = packetsOf(journey, /\.urgent$/);
    expect(urgent.length).toBeGreaterThan(0);
    expect(magics([...urgent, ...packetsOf(journey)])).toEqual(["GWS1"]);
  });
});

describe("without an identity", () => {
  /** Puts another file in a node's place for the loader's credentials while the work goes on. */
  const withLoaderAs = async (text: string | null, work: () => Promise<void>): Promise<void> => {
    const path = join(credentialsOf("b"), "loader.creds");
    renameSync(path, `${path}.true`);
    if (text !== null) writeFileSync(path, text, { mode: 0o600 });
    try {
      await work();
    } finally {
      renameSync(`${path}.true`, path);
    }
  };

  it("nothing is moved encrypted, and the reason says what is missing", async () => {
    await startGuest("nobody");
    await withLoaderAs(null, async () => {
      const { error } = await (await world.migrate("nobody", "b", ENCRYPTED)).end;
      expect(error).toMatchObject({ code: "no-identity", actor: "loader", side: "destination" });
      expect(error?.reason).toMatch(/^encryption needs an identity: .*loader\.creds cannot be read/);
    });
    await expectStayed(world, "nobody", "a");
    await withLoaderAs(makeAccount().credentials("loader.b"), async () => {
      const { error } = await (await world.migrate("nobody", "b", ENCRYPTED)).end;
      expect(error).toMatchObject({ code: "not-identified" });
      expect(error?.reason).toMatch(/was issued by A\w+, and not by A\w+/);
    });
    await expectStayed(world, "nobody", "a");
  });
});
