import { X509Certificate } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CENTRAL_ROLES, NODE_ROLES, permissionsOf } from "@godwit/protocol";
import { type Account, decode, type User } from "@nats-io/jwt";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { userKeyOf } from "./authority.ts";
import { addNode, addRole, initialize, renewServers, revoke } from "./folder.ts";

let directory: string;
let folder: string;
const SERVERS = { hosts: ["nats.example.org", "127.0.0.1"], serverDirectory: "/etc/nats" };
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "godwit-folder-"));
  folder = join(directory, "credentials");
  await initialize(folder, SERVERS);
  await addNode(folder, "a", ["checkpoints"]);
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const read = (...parts: ReadonlyArray<string>): string => readFileSync(join(folder, ...parts), "utf8");
const claimsIn = (text: string) => decode<User>(/JWT-----\s+([\w.-]+)/.exec(text)![1]!);
const accountIn = (conf: string) => {
  const jwts = [...conf.matchAll(/A[A-Z2-7]{55}: "([\w.-]+)"/g)].map(([, jwt]) => decode<Account>(jwt!));
  return jwts.find(({ name }) => name === "godwit")!;
};

describe("a folder of credentials", () => {
  it("holds a file for each role, and lets only its owner look", () => {
    expect(readdirSync(join(folder, "nodes", "a")).sort()).toEqual([
      "ca.pem",
      ...NODE_ROLES.map((role) => `${role}.creds`).sort(),
    ]);
    const files = readdirSync(folder, { recursive: true, withFileTypes: true });
    expect(files.length).toBeGreaterThan(20);
    for (const file of files)
      expect(statSync(join(file.parentPath, file.name)).mode & 0o077, join(file.parentPath, file.name)).toBe(0);
    expect(read("private-keys", "README.txt")).toContain("can\nmake a user that may do everything");
    for (const role of CENTRAL_ROLES)
      expect(claimsIn(read(role === "coordinator" ? role : "", `${role}.creds`)).name).toBe(role);
  });

  it("gives a user the permissions of its role, signed by the account that servers are told of", () => {
    const account = accountIn(read("server", "godwit-auth.conf"));
    const { name, iss, nats } = claimsIn(read("nodes", "a", "loader.creds"));
    const wanted = permissionsOf({ role: "loader", node: "a" }, { objectStores: ["checkpoints"] });
    expect({ name, iss }).toEqual({ name: "loader.a", iss: account.sub });
    expect(nats.pub).toEqual({ allow: wanted.publish });
    expect(nats.sub).toEqual({ allow: wanted.subscribe });
    expect(nats.resp).toEqual({ max: 1, ttl: wanted.responses!.ms * 1e6 });
    expect(claimsIn(read("nodes", "a", "multifd-worker.creds")).nats.resp).toBeUndefined();
  });

  it("has a certificate for the servers' names and addresses, by an authority that may vouch for nothing beneath it", () => {
    const authority = new X509Certificate(read("ca.pem"));
    const server = new X509Certificate(read("server", "server.pem"));
    expect(authority.ca && authority.verify(authority.publicKey)).toBe(true);
    expect(server.verify(authority.publicKey) && server.checkIssued(authority) && !server.ca).toBe(true);
    expect(server.checkHost("nats.example.org")).toBe("nats.example.org");
    expect(server.checkIP("127.0.0.1")).toBe("127.0.0.1");
    expect(server.checkHost("elsewhere.example.org")).toBeUndefined();
    expect(read("server", "godwit-auth.conf")).toContain('cert_file: "/etc/nats/server.pem"');
  });

  it("overwrites nothing", async () => {
    const before = read("nodes", "a", "node.creds");
    for (const again of [
      () => initialize(folder, SERVERS),
      () => addNode(folder, "a", []),
      () => addRole(folder, "admin"),
    ])
      await expect(again()).rejects.toMatchObject({ code: "credentials-exist" });
    expect(read("nodes", "a", "node.creds")).toBe(before);
    for (const elsewhere of [
      () => addNode(directory, "b", []),
      () => revoke(folder, "b"),
      () => renewServers(directory, SERVERS),
    ])
      await expect(elsewhere()).rejects.toMatchObject({ code: "no-credentials" });
    expect(existsSync(join(directory, "nodes"))).toBe(false);
  });

  it("revokes a node's users and a role's, tells servers which, and keeps the operator's word as they know it", async () => {
    const operatorOf = (conf: string) => /operator: "(.*)"/.exec(conf)![1];
    const before = read("server", "godwit-auth.conf");
    const keys = NODE_ROLES.map((role) => userKeyOf(readFileSync(join(folder, "nodes", "a", `${role}.creds`))));
    const admin = userKeyOf(readFileSync(join(folder, "admin.creds")));
    await revoke(folder, "a");
    await revoke(folder, "admin");
    const after = read("server", "godwit-auth.conf");
    expect(Object.keys(accountIn(after).nats.revocations!).sort()).toEqual([...keys, admin].sort());
    expect(operatorOf(after)).toBe(operatorOf(before));
    expect(accountIn(after).sub).toBe(accountIn(before).sub);
    expect(after).toContain('cert_file: "/etc/nats/server.pem"');
    await addNode(folder, "a", []);
    await addRole(folder, "admin");
    expect(keys).not.toContain(userKeyOf(readFileSync(join(folder, "nodes", "a", "node.creds"))));
    await renewServers(folder, { hosts: ["other.example.org"], serverDirectory: null });
    expect(new X509Certificate(read("server", "server.pem")).checkHost("other.example.org")).toBeDefined();
    // Whoever was revoked stays revoked.
    expect(Object.keys(accountIn(read("server", "godwit-auth.conf")).nats.revocations!)).toHaveLength(keys.length + 1);
  });
});
