import { assert, describe, it } from "vitest";
import type { NatsGreeting } from "./nats-greeting.ts";
import { type MonitoredServer, type MonitorReading, parseVarz } from "./nats-monitor.ts";
import { syncFinding } from "./sync-finding.ts";

const ALONE: NatsGreeting = { server: "h:4222", version: "2.15.1", jetStream: true, serverId: "N1", cluster: null };
const CLUSTERED: NatsGreeting = { ...ALONE, cluster: "c" };
const read = (name: string, more: Partial<MonitoredServer> = {}): MonitorReading => ({
  _tag: "Read",
  url: `http://${name}`,
  server: {
    id: name,
    name,
    version: "2.15.1",
    cluster: null,
    domain: null,
    clusterSize: null,
    sync: "always",
    ...more,
  },
});
const member = (name: string, more: Partial<MonitoredServer> = {}) =>
  read(name, { cluster: "c", clusterSize: 3, ...more });

describe("what is known of sync_interval", () => {
  it.each<readonly [string, ReadonlyArray<MonitorReading>, NatsGreeting, string, RegExp]>([
    ["nothing, without a port", [], ALONE, "absent", /^not known: .*--nats-monitor/],
    ["that it is always", [read("N1")], ALONE, "works", /^always, at N1$/],
    ["that it is not", [read("N1", { sync: 120_000 })], ALONE, "missing", /^2 m 00 s at N1: .*always/],
    ["nothing, when the port is another server's", [read("N2")], ALONE, "absent", /^not known: .*does not belong/],
    ["nothing, when the server does not say", [read("N1", { sync: null })], ALONE, "absent", /N1 does not say/],
    [
      "nothing, when the port does not answer",
      [{ _tag: "Failed", url: "http://N1", reason: "refused" }],
      ALONE,
      "absent",
      /^not known: http:\/\/N1: refused/,
    ],
    ["of all three servers", ["n1", "n2", "n3"].map((name) => member(name)), CLUSTERED, "works", /n1, n2, n3$/],
    ["of two of three servers", [member("n1"), member("n2")], CLUSTERED, "absent", /^not known for all of 3 servers/],
    ["of one server, twice", [member("n1"), member("n1"), member("n1")], CLUSTERED, "absent", /^not known for all/],
    ["that one of three is not", [member("n1"), member("n2", { sync: 1000 })], CLUSTERED, "missing", /^1.00 s at n2/],
    ["that one is too old", [member("n1", { version: "2.10.5" })], CLUSTERED, "missing", /n1 is nats-server 2.10.5/],
  ])("%s", (_, readings, greeting, state, detail) => {
    const found = syncFinding(readings, { greeting, jsDomain: null });
    assert.strictEqual(found.state, state);
    assert.match(found.detail, detail);
  });

  it.each<readonly [string, ReadonlyArray<MonitorReading>, string, RegExp]>([
    ["of the domain's only server", [read("hub", { domain: "hub" })], "works", /^always, at hub$/],
    [
      "of the domain's three servers",
      ["h1", "h2", "h3"].map((name) => member(name, { cluster: "h", domain: "hub" })),
      "works",
      /h1, h2, h3$/,
    ],
    ["nothing, from those that we talk to", [member("n1")], "absent", /^not known: .*n1, which does not belong/],
  ])("where the buckets are in a domain: %s", (_, readings, state, detail) => {
    const found = syncFinding(readings, { greeting: CLUSTERED, jsDomain: "hub" });
    assert.strictEqual(found.state, state);
    assert.match(found.detail, detail);
  });
});

describe("what a monitoring port says", () => {
  const varz = { server_id: "N1", server_name: "n1", version: "2.15.1" };
  it("names the server, its cluster and when it writes to the disk", () => {
    const jetstream = {
      config: { domain: "hub", sync_always: true, sync_interval: 120_000_000_000 },
      meta: { cluster_size: 3 },
    };
    assert.deepStrictEqual(parseVarz({ ...varz, cluster: { name: "c" }, jetstream, cores: 2 }), {
      id: "N1",
      name: "n1",
      version: "2.15.1",
      cluster: "c",
      domain: "hub",
      clusterSize: 3,
      sync: "always",
    });
    assert.strictEqual(parseVarz({ ...varz, jetstream: { config: { sync_interval: 5e9 } } }).sync, 5000);
    assert.deepInclude(parseVarz({ ...varz, cluster: {} }), { cluster: null, clusterSize: null, sync: null });
  });
  it("is refused when it is something else", () => {
    for (const document of [null, {}, [], { ...varz, version: 2 }]) assert.throws(() => parseVarz(document));
  });
});
