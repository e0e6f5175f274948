import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { type LocalNats, startNats } from "./local-nats.ts";

export interface LocalNatsClusterOptions {
  /** Each server's streams lie in a directory of its own below it. */
  readonly directory: string;
  /** Default 3, the smallest number that survives the loss of one. */
  readonly servers?: number;
  /** Further lines of a server's configuration; the first one has index 0. */
  readonly config?: (index: number) => string;
  /** Name of the cluster, and the letters before a server's number; default local and n. Clusters that are joined have different ones. */
  readonly name?: string;
  readonly prefix?: string;
  /** Address that the servers listen on for clients; default 127.0.0.1. */
  readonly host?: string;
  /** Default true. */
  readonly jetstream?: boolean;
  /** Name of its JetStream's domain; default: it has none. */
  readonly jsDomain?: string;
}

/** nats-servers on loopback, one cluster. They are named n1, n2, n3, unless told otherwise. */
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
  const { name = "local", prefix = "n" } = options;
  const routePorts = await freePorts(options.servers ?? 3);
  const routes = routePorts.map((port) => `nats://127.0.0.1:${port}`).join(", ");
  const start = (index: number, port: number): Promise<LocalNats> =>
    startNats({
      storeDir: join(options.directory, `${prefix}${index + 1}`),
      port,
      ...(options.host === undefined ? {} : { host: options.host }),
      ...(options.jetstream === undefined ? {} : { jetstream: options.jetstream }),
      ...(options.jsDomain === undefined ? {} : { jsDomain: options.jsDomain }),
      config: [
        `server_name: ${prefix}${index + 1}`,
        `cluster { name: ${name}, listen: "127.0.0.1:${routePorts[index]}", routes: [${routes}] }`,
        options.config?.(index) ?? "",
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
  const indexOf = (server: string): number => {
    const index = servers.findIndex((_, i) => server === `${prefix}${i + 1}`);
    if (index < 0) throw new Error(`there is no server ${JSON.stringify(server)}`);
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
export async function freePorts(count: number): Promise<ReadonlyArray<number>> {
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
