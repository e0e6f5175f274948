/**
 * Two NATS clusters on this machine, joined by a leaf node: the hub, which has JetStream in a domain, and the branch, which has none.
 * They listen on different addresses, and the link between them leads through proxies that can be cut.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts, startNatsCluster } from "@godwit/fabric/local-nats-cluster";
import { openProxy, type ProxyState } from "../chaos/proxy.ts";

export const HUB_HOST = "127.0.0.1";
export const BRANCH_HOST = "127.0.0.2";
export const JS_DOMAIN = "hub";
const HUB_SERVERS = 3;
const BRANCH_SERVERS = 2;

export interface TwoClusters {
  readonly hubUrl: string;
  readonly branchUrl: string;
  /** What happens to the link, all of its connections. */
  readonly link: (state: ProxyState) => void;
  readonly close: () => Promise<void>;
}

/** `branchConfig`: further lines of the branch's servers. Resolves once all servers take connections: the link comes up meanwhile. */
export const startTwoClusters = async (branchConfig = ""): Promise<TwoClusters> => {
  const directory = mkdtempSync(join(tmpdir(), "godwit-two-clusters-"));
  const closing: Array<() => Promise<void>> = [];
  const close = async (): Promise<void> => {
    for (const end of closing.toReversed()) await end();
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const leafPorts = await freePorts(HUB_SERVERS);
    const proxies = await Promise.all(leafPorts.map(() => openProxy()));
    for (const [index, proxy] of proxies.entries()) {
      proxy.leadTo(leafPorts[index]!);
      closing.push(proxy.close);
    }
    const hub = await startNatsCluster({
      directory,
      name: "hub",
      prefix: "hub",
      host: HUB_HOST,
      servers: HUB_SERVERS,
      jsDomain: JS_DOMAIN,
      config: (index) =>
        // Told to the other side, their own addresses would be a way around the proxies.
        `leafnodes { listen: "${HUB_HOST}:${leafPorts[index]}", no_advertise: true }`,
    });
    closing.push(hub.stop);
    const remotes = proxies.map(({ port }) => `"nats-leaf://127.0.0.1:${port}"`).join(", ");
    const branch = await startNatsCluster({
      directory,
      name: "branch",
      prefix: "branch",
      host: BRANCH_HOST,
      servers: BRANCH_SERVERS,
      jetstream: false,
      config: () => `leafnodes { reconnect: 1, remotes: [{ urls: [${remotes}] }] }\n${branchConfig}`,
    });
    closing.push(branch.stop);
    return {
      hubUrl: hub.url,
      branchUrl: branch.url,
      link: (state) => {
        for (const proxy of proxies) proxy.enter(state);
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
};
