/** NATS that lets in nobody but godwit's users, over TLS: everything works there, and nobody can do more than its part. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FabricError, NatsFabric } from "@godwit/fabric";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import { inboxPrefixOf, NODE_ROLES, subjects, userOf } from "@godwit/protocol";
import { connect, credsAuthenticator, PermissionViolationError } from "@nats-io/transport-node";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { querySave, save, startPostcopy } from "../../services/cli/src/client.ts";
import { addNode, initialize, revoke } from "../../services/cli/src/credentials/folder.ts";
import { FAMILIES, may, SUBJECTS } from "./authorization.ts";
import { expectMoved } from "./outcome.ts";
import { device, expectDevicesAt } from "./vfio-devices.ts";
import { eventually, MIB, openWorld, type World } from "./world.ts";

let directory: string;
let folder: string;
let nats: LocalNats;
const natsLog: string[] = [];
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "godwit-credentials-"));
  folder = join(directory, "credentials");
  await initialize(folder, { hosts: ["localhost", "127.0.0.1"], serverDirectory: null });
  for (const node of ["a", "b"]) await addNode(folder, node, []);
  const config = readFileSync(join(folder, "server", "godwit-auth.conf"), "utf8");
  nats = await startNats({ storeDir: join(directory, "nats"), config, log: (line) => natsLog.push(line) });
});
afterAll(async () => {
  await nats?.stop();
  rmSync(directory, { recursive: true, force: true });
});

const fileOf = (role: string, node: string | undefined): string => {
  if (node !== undefined) return join(folder, "nodes", node, `${role}.creds`);
  return join(folder, role === "coordinator" ? role : "", `${role}.creds`);
};
const enter = (role: string, node: string | undefined) =>
  connect({
    servers: nats.url,
    name: `${role} ${node}`,
    authenticator: credsAuthenticator(readFileSync(fileOf(role, node))),
    tls: { caFile: join(folder, "ca.pem") },
    inboxPrefix: inboxPrefixOf({ role, node } as never),
    reconnect: false,
  });
/** As an actor of that role at that node comes in. */
const fabricOf = (role: string, options: { readonly creds?: string; readonly caFile?: string }) =>
  Effect.runPromise(
    Effect.scoped(
      Effect.result(
        Layer.build(
          NatsFabric.layer({
            servers: nats.url,
            name: role,
            role,
            ...(options.creds === undefined ? {} : { creds: options.creds }),
            ...(options.caFile === undefined ? {} : { tls: { caFile: options.caFile } }),
          }),
        ),
      ),
    ),
  );
const refusalOf = async (...args: Parameters<typeof fabricOf>): Promise<FabricError | null> => {
  const entered = await fabricOf(...args);
  return entered._tag === "Failure" && entered.failure instanceof FabricError ? entered.failure : null;
};

const USERS: ReadonlyArray<readonly [role: string, node: string | undefined]> = [
  ...["a", "b"].flatMap((node) => NODE_ROLES.map((role) => [role, node] as const)),
  ...["coordinator", "operator", "observer", "admin"].map((role) => [role, undefined] as const),
];

describe("a user of NATS", () => {
  it("is tried on every family of subjects that there is", () => {
    expect(Object.keys(subjects).filter((family) => !FAMILIES.has(family))).toEqual([]);
  });

  it.each(USERS.map(([role, node]) => [userOf({ role, node } as never), role, node] as const))(
    "%s may say and hear what it is there for, and nothing else",
    async (_user, role, node) => {
      const others = USERS.filter((user) => user[0] !== role || user[1] !== node);
      const inboxes = others.map(([other, place]) => `${inboxPrefixOf({ role: other, node: place } as never)}.x.y`);
      const nc = await enter(role, node);
      const refused = { publish: new Set<string>(), subscription: new Set<string>() };
      const following = (async () => {
        for await (const status of nc.status())
          if (status.type === "error" && status.error instanceof PermissionViolationError)
            refused[status.error.operation].add(status.error.subject);
      })();
      // What is no subject to publish to is one to subscribe.
      const plain = SUBJECTS.filter(({ subject }) => !/[*>]/.test(subject));
      const patterns = [...SUBJECTS.map(({ subject }) => subject), ...inboxes];
      for (const { subject } of plain) nc.publish(subject, "x");
      for (const subject of inboxes) nc.publish(subject, "x");
      for (const subject of patterns) nc.subscribe(subject, { callback: () => {} });
      const own = `${inboxPrefixOf({ role, node } as never)}.x.y`;
      nc.subscribe(own, { callback: () => {} });
      await nc.flush();
      await nc.close();
      await following;
      const expected = (who: "publish" | "subscribe") =>
        SUBJECTS.filter((line) => !may(line[who], line, role, node)).map(({ subject }) => subject);
      expect([...refused.publish].sort()).toEqual(
        [...expected("publish").filter((subject) => !/[*>]/.test(subject)), ...inboxes].sort(),
      );
      expect([...refused.subscription].sort()).toEqual([...expected("subscribe"), ...inboxes].sort());
    },
  );
});

describe("a process without the right papers", () => {
  it("is told what it lacks: credentials, those of its role, trust in the server", async () => {
    const caFile = join(folder, "ca.pem");
    expect(await refusalOf("loader", { caFile })).toMatchObject({ code: "nats-denied", retryable: false });
    expect(await refusalOf("loader", { caFile, creds: folder })).toMatchObject({
      code: "nats-denied",
      reason: expect.stringContaining("loader.creds"),
    });
    const creds = join(folder, "nodes", "a");
    expect(await refusalOf("loader", { creds })).toMatchObject({ code: "nats-untrusted", retryable: false });
    expect(await refusalOf("loader", { creds, caFile: join(folder, "none.pem") })).toMatchObject({
      code: "nats-untrusted",
      reason: expect.stringContaining("none.pem"),
    });
    expect(await refusalOf("loader", { creds, caFile })).toBeNull();
  });
});

describe("a world with credentials for each actor, over TLS", () => {
  let world: World;
  beforeAll(async () => {
    world = await openWorld({ natsUrl: nats.url, credentials: folder });
    mkdirSync(world.cluster.settingsOf("b").checkpointDirectory, { recursive: true });
  });
  afterAll(() => world?.close());

  it("moves a guest with its device, another by postcopy, and saves it; nobody is denied anything", async () => {
    const spec = await world.startGuest({
      name: "vm1",
      memoryBytes: 16 * MIB,
      dirtyRateBytesPerSecond: 8 * MIB,
      devices: [device("nic0")],
    });
    // Both nodes are known by these very credentials when they agree on a key.
    const sealed = await world.migrate("vm1", "b", { capabilities: { encryption: true } });
    expect(await expectMoved(world, sealed, "b")).toMatchObject({ attempts: 1, encryption: { cipher: "aes-256-gcm" } });
    await expectDevicesAt(world, spec, "b");
    await world.startGuest({
      name: "vm2",
      memoryBytes: 32 * MIB,
      workingSetBytes: 24 * MIB,
      dirtyRateBytesPerSecond: 64 * MIB,
    });
    const journey = await world.migrate("vm2", "b", {
      parameters: { "max-bandwidth": 32 * MIB, "downtime-limit": 20, "max-postcopy-bandwidth": 16 * MIB },
      capabilities: { "postcopy-ram": true, "postcopy-preempt": true },
    });
    await journey.until(({ ram }) => (ram?.["dirty-sync-count"] ?? 0) >= 2);
    await world.run(startPostcopy({ migration: journey.id }));
    expect((await expectMoved(world, journey, "b"))["postcopy-requests"]).toBeGreaterThan(0);
    const id = "00000000000000ff" as never;
    const request = {
      id,
      guest: "vm2",
      uri: "file:vm2",
      parameters: {},
      capabilities: {},
      stop: false,
      checksums: false,
    };
    await world.run(save("b", request));
    await eventually("the save ends", async () => {
      const { status, error } = await world.run(querySave("b", { id }));
      expect(error).toBeUndefined();
      return status === "completed";
    });
    expect(world.log()).not.toMatch(/Denied|Permissions Violation/);
    expect(natsLog.filter((line) => /Violation/.test(line) && /nats\.js:godwit /.test(line))).toEqual([]);
  });
});

describe("revoked credentials", () => {
  it("count no more once the server has read its configuration anew; those made after its start count at once", async () => {
    const caFile = join(folder, "ca.pem");
    await addNode(folder, "c", []);
    const creds = join(folder, "nodes", "c");
    expect(await refusalOf("loader", { creds, caFile })).toBeNull();
    const old = join(directory, "old.creds");
    writeFileSync(old, readFileSync(join(creds, "loader.creds")));
    await revoke(folder, "c");
    const file = join(directory, "nats", "nats-server.conf");
    const config = readFileSync(file, "utf8");
    const auth = readFileSync(join(folder, "server", "godwit-auth.conf"), "utf8");
    writeFileSync(file, config.slice(0, config.indexOf("# Made by")) + auth);
    process.kill(nats.pid, "SIGHUP");
    await eventually("the server has read it", () =>
      natsLog.some((line) => line.includes("Reloaded server configuration")),
    );
    expect(await refusalOf("loader", { creds: old, caFile })).toMatchObject({ code: "nats-denied", retryable: false });
    await addNode(folder, "c", []);
    expect(await refusalOf("loader", { creds, caFile })).toBeNull();
  });
});
