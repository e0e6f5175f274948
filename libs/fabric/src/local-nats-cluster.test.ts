import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "@nats-io/transport-node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startNatsCluster } from "./local-nats-cluster.ts";

describe("a local cluster of nats-servers", () => {
  let directory = "";
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "godwit-local-nats-cluster-"));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  /** Processes that were started with a configuration in this test's directory. */
  const serversHere = () =>
    readdirSync("/proc").filter((pid) => {
      try {
        return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(directory);
      } catch {
        return false; // It has ended since it was listed.
      }
    });

  it("has three servers, each of which can be killed and started again where it was", async () => {
    const cluster = await startNatsCluster({ directory });
    const urls = cluster.url.split(",");
    expect(urls).toHaveLength(3);
    expect(serversHere()).toHaveLength(3);
    await cluster.kill("n2");
    await expect(connect({ servers: urls[1] ?? "", reconnect: false })).rejects.toThrow("refused");
    await cluster.restart("n2");
    const nc = await connect({ servers: urls[1] ?? "" });
    expect(nc.info).toMatchObject({ server_name: "n2", cluster: "local" });
    await nc.close();
    expect(() => cluster.kill("n4")).toThrow("n4");
    await cluster.stop();
    expect(serversHere()).toEqual([]);
  });

  it("that does not come up leaves no server behind, and says why", async () => {
    await expect(startNatsCluster({ directory, config: () => "nonsense {" })).rejects.toThrow("exit code");
    expect(serversHere()).toEqual([]);
  });
});
