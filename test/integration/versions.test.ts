// Real processes of two builds, which speak different versions of the protocol: they work together, or refuse each other in words.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PROTOCOL, type ProtocolVersion, versionText } from "@godwit/protocol";
import { afterAll, beforeAll, expect, it } from "vitest";
import { nodes } from "../../services/cli/src/client.ts";
import { run, type Started, start } from "../cli/godwit-process.ts";
import { makeBuild } from "./other-build.ts";
import { expectMoved, expectRunsOnce, expectStayed } from "./outcome.ts";
import { MIB, openWorld, type World } from "./world.ts";

const NEWER: ProtocolVersion = { major: PROTOCOL.major, minor: PROTOCOL.minor + 7 };
const FOREIGN: ProtocolVersion = { major: PROTOCOL.major + 1, minor: 0 };

let world: World;
let directory: string;
const running: Started[] = [];
const rootOf = (version: ProtocolVersion): string => join(directory, versionText(version));

/** A node of another build, on this machine; resolves once all of its actors are there. */
const startNode = async (name: string, version: ProtocolVersion): Promise<void> => {
  const { nats, runtimeDirectory, guestDirectory } = world.cluster.settingsOf(name);
  const where = ["--nats", nats, "--runtime-dir", runtimeDirectory, "--guest-dir", guestDirectory];
  const node = start(["node", "--name", name, "--workers", "1", ...where], {
    root: makeBuild(rootOf(version), version),
  });
  running.push(node);
  await node.printed(`node ${name} is ready`);
};

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "godwit-builds-"));
  world = await openWorld();
  await Promise.all([startNode("newer", NEWER), startNode("foreign", FOREIGN)]);
});
afterAll(async () => {
  for (const node of running) node.kill("SIGTERM");
  await Promise.all(running.map(({ finished }) => finished));
  await world?.close();
  rmSync(directory, { recursive: true, force: true });
});

it("a newer minor version: a guest goes to a node of it, and comes back", async () => {
  const name = "there-and-back";
  await world.startGuest({ name, memoryBytes: 16 * MIB, dirtyRateBytesPerSecond: MIB });
  for (const destination of ["newer", "a"]) {
    const end = await expectMoved(world, await world.migrate(name, destination), destination);
    expect(end.attempts).toBe(1);
    expect(await expectRunsOnce(world, name)).toBe(destination);
  }
});

it("another major version: a migration to a node of it, or from it, is refused before it begins, and the guest runs on", async () => {
  await world.startGuest({ name: "stays", memoryBytes: 16 * MIB, dirtyRateBytesPerSecond: MIB });
  await world.startGuest({ name: "stays-there", memoryBytes: 16 * MIB, dirtyRateBytesPerSecond: MIB }, "foreign");
  const words =
    `node foreign speaks protocol version ${versionText(FOREIGN)}, ` +
    `this coordinator ${versionText(PROTOCOL)}: upgrade this coordinator`;
  const refused = { code: "version-mismatch", actor: "coordinator" };
  await expect(world.migrate("stays", "foreign")).rejects.toMatchObject({ ...refused, reason: words });
  await expect(world.migrate("stays-there", "a")).rejects.toMatchObject({
    ...refused,
    reason: expect.stringContaining(words),
  });
  await expectStayed(world, "stays", "a");
  await expectStayed(world, "stays-there", "foreign");
});

it("another major version: who asks a coordinator is refused, and told what each speaks", async () => {
  const { nats } = world.cluster.settingsOf("a");
  const { code, stdout } = await run(["migrate", "stays", "--to", "b", "--json", "--nats", nats], {
    root: rootOf(FOREIGN),
  });
  expect(code).toBe(1);
  expect(JSON.parse(stdout).error).toMatchObject({
    code: "version-mismatch",
    reason: `its sender speaks protocol version ${versionText(FOREIGN)}, this coordinator ${versionText(PROTOCOL)}: upgrade this coordinator`,
  });
});

it("the list of nodes says what each speaks, and of which nothing else can be known", async () => {
  const found = await world.run(nodes({}));
  const versions = Object.fromEntries(found.map(({ node, protocol }) => [node, protocol]));
  expect(versions).toEqual({
    a: versionText(PROTOCOL),
    b: versionText(PROTOCOL),
    foreign: versionText(FOREIGN),
    newer: versionText(NEWER),
  });
  expect(found.filter(({ error }) => error !== undefined).map(({ node }) => node)).toEqual(["foreign"]);
});
