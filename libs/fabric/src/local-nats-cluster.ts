import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { type LocalNats, startNats } from "./local-nats.ts";

export interface LocalNatsClusterOptions {
  /** Each server's streams lie in a directory of its own below it. */
  readonly directory: string;
  /** Default 3, the smallest number that survives the loss of one. */
  readonly servers?: number;
  /** Further lines of each server's configuration. */
  readonly config?: string;
}

/** nats-servers on loopback, one cluster. They are named n1, n2, n3. */
export interface LocalNatsCluster {
  /** The URLs of all servers, separated by commas; those of servers that were killed included. */
  readonly url: string;
  /** As a crash does it; resolves when the process is gone. */
  readonly kill: (name: string) => Promise<void>;
  /** Starts one that was killed, on its port and store; resolves once it takes connections. */
  readonly restart: (name: string) => Promise<void>;
  /** Ends all of them; resolves when they are gone. */
  readonly stop: () => Promise<void>;
}

/**
 * Starts the servers, and resolves once all take connections: they find each other and elect their leaders meanwhile. Rejects as
 * `startNats` does.
 */
export async function startNatsCluster(options: LocalNatsClusterOptions): Promise<LocalNatsCluster> {
  const routePorts = await freePorts(options.servers ?? 3);
  const routes = routePorts.map((port) => `nats://127.0.0.1:${port}`).join(", ");
  const start = (index: number, port: number): Promise<LocalNats> =>
    startNats({
      storeDir: join(options.directory, `n${index + 1}`),
      port,
      config: [
        `server_name: n${index + 1}`,
        `cluster { name: local, listen: "127.0.0.1:${routePorts[index]}", routes: [${routes}] }`,
        options.config ?? "",
      ].join("\n"),
    });
  const starting = await Promise.allSettled(routePorts.map((_, index) => start(index, 0)));
  const servers = starting.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
  const failed = starting.find((outcome) => outcome.status === "rejected");
  const stop = async (): Promise<void> => {
    // A server that leaves orderly hands its streams over to others, which are about to end as well.
    await Promise.all(servers.map((server) => server.kill()));
  };
  if (failed !== undefined) {
    await stop();
    throw failed.reason;
  }
  const indexOf = (name: string): number => {
    const index = Number(/^n(\d+)$/.exec(name)?.[1] ?? 0) - 1;
    if (servers[index] === undefined) throw new Error(`there is no server ${JSON.stringify(name)}`);
    return index;
  };
  const serverOf = (name: string): LocalNats => servers[indexOf(name)] as LocalNats;
  return {
    url: servers.map(({ url }) => url).join(","),
    kill: (name) => serverOf(name).kill(),
    restart: async (name) => {
      servers[indexOf(name)] = await start(indexOf(name), serverOf(name).port);
    },
    stop,
  };
}

/** Ports that were free a moment ago: members of a cluster must know each other's beforehand. */
async function freePorts(count: number): Promise<ReadonlyArray<number>> {
  const listeners: Array<Server> = [];
  for (let i = 0; i < count; i++) {
    const listener = createServer();
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    listeners.push(listener);
  }
  const ports = listeners.map((listener) => (listener.address() as { port: number }).port);
  await Promise.all(listeners.map((listener) => new Promise((resolve) => listener.close(resolve))));
  return ports;
}
