/** Node b's direct connections by a detour: a proxy before each of its actors that takes them, which can be cut, and sees what passes. Node a takes none. */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import type { LocalClusterOptions } from "@godwit/cli/local-cluster";
import { openProxy, type ProxyState } from "../chaos/proxy.ts";

export interface Detour {
  readonly directOf: NonNullable<LocalClusterOptions["directOf"]>;
  /** Where node b's loader listens itself. */
  readonly loaderPort: number;
  /** Of all connections together. */
  readonly enter: (state: ProxyState) => void;
  /** Bytes that have passed, both ways. */
  readonly bytes: () => number;
  /** What passes from now on. */
  readonly record: () => ReadonlyArray<Buffer>;
  readonly close: () => Promise<void>;
}

/** A port that nobody else has just now. */
export const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
};

export const openDetour = async (): Promise<Detour> => {
  let bytes = 0;
  let recorded: Buffer[] | null = null;
  const tap = (chunk: Buffer): void => {
    bytes += chunk.length;
    recorded?.push(chunk);
  };
  const places = new Map<string, { readonly port: number; readonly proxy: Awaited<ReturnType<typeof openProxy>> }>();
  for (const role of ["loader", "vfio-agent"]) {
    const [port, proxy] = [await freePort(), await openProxy(tap)];
    proxy.leadTo(port);
    places.set(role, { port, proxy });
  }
  const proxies = [...places.values()].map(({ proxy }) => proxy);
  return {
    directOf: ({ role, node }) => {
      const place = places.get(role);
      if (node !== "b" || place === undefined) return { listen: "off" };
      return { listen: `127.0.0.1:${place.port}`, address: `127.0.0.1:${place.proxy.port}` };
    },
    loaderPort: places.get("loader")!.port,
    enter: (state) => {
      for (const proxy of proxies) proxy.enter(state);
    },
    bytes: () => bytes,
    record: () => {
      recorded = [];
      return recorded;
    },
    close: async () => {
      for (const proxy of proxies) await proxy.close();
    },
  };
};
