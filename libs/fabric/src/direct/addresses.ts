/** Where a destination listens for direct connections, and where it says that it can be reached. */
import { createHash, randomUUID } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { isIP } from "node:net";
import { networkInterfaces } from "node:os";
import { LANE_ADDRESSES_MAX } from "@godwit/protocol";

/** Where to listen: the first port of the range that is free; 0: any. */
export interface ListenPlace {
  readonly host: string;
  readonly firstPort: number;
  readonly lastPort: number;
}
/** A place that is offered instead of the host's own; port 0: the one that is listened on. */
export interface Announced {
  readonly host: string;
  readonly port: number;
}

const PORT_MAX = 65_535;
/** HOST:PORT, HOST:FIRST-LAST, [IPv6]:PORT. */
const LISTEN = /^(\[[0-9a-fA-F:.]+\]|[^:\s[\]]+):(\d{1,5})(?:-(\d{1,5}))?$/;
const ANNOUNCED = /^(\[[0-9a-fA-F:.]+\]|[^:\s,[\]]+)(?::(\d{1,5}))?$/;
const bare = (host: string): string => host.replace(/^\[|\]$/g, "");

/** `off` is null; undefined for what is neither `off` nor a place. */
export const parseListen = (text: string): ListenPlace | null | undefined => {
  if (text === "off") return null;
  const [, host = "", first = "", last = first] = LISTEN.exec(text) ?? [];
  const [firstPort, lastPort] = [Number(first), Number(last)];
  if (host === "" || lastPort > PORT_MAX || firstPort > lastPort || (firstPort === 0 && lastPort > 0)) return undefined;
  // A name would be looked up at each start, and may be another host's.
  return isIP(bare(host)) === 0 ? undefined : { host: bare(host), firstPort, lastPort };
};

/** Undefined for what is no list of HOST or HOST:PORT. */
export const parseAnnounced = (text: string): ReadonlyArray<Announced> | undefined => {
  const places = text.split(",").map((part) => {
    const [, host = "", port = "0"] = ANNOUNCED.exec(part.trim()) ?? [];
    return { host: bare(host), port: Number(port) };
  });
  const isGood =
    places.length <= LANE_ADDRESSES_MAX && places.every(({ host, port }) => host !== "" && port <= PORT_MAX);
  return isGood ? places : undefined;
};

export const joinAddress = (host: string, port: number): string =>
  isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;

/** Undefined for what is no HOST:PORT. */
export const splitAddress = (address: string): { readonly host: string; readonly port: number } | undefined => {
  const [place] = parseAnnounced(address) ?? [];
  return place === undefined || place.port === 0 || address.includes(",") ? undefined : place;
};

/** Which network stack this process has: one and the same host's, outside containers or in the same one. */
export const networkId = (): string => {
  try {
    const stack = `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8")} ${readlinkSync("/proc/self/ns/net")}`;
    return createHash("sha256").update(stack).digest("hex").slice(0, 32);
  } catch {
    // Nobody's: loopback is then not offered.
    return randomUUID();
  }
};

const isLoopback = (host: string): boolean => host === "::1" || host.startsWith("127.");
const isWildcard = (host: string): boolean => host === "0.0.0.0" || host === "::";
/** Reaches neighbours alone, and says not by which network. */
const isLinkLocal = (host: string): boolean => host.startsWith("169.254.") || /^fe[89ab]/i.test(host);

/** This host's addresses, those of IPv4 first. */
const ownAddresses = (family: "IPv4" | "both"): ReadonlyArray<string> => {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  const outer = all.filter(({ internal, address }) => !internal && !isLinkLocal(address));
  const of = (wanted: string) => outer.filter((each) => each.family === wanted).map(({ address }) => address);
  return [...of("IPv4"), ...(family === "both" ? of("IPv6") : [])];
};

/**
 * What a worker is offered, the likeliest first; nothing when it could reach nothing of it. Loopback only to a worker of the same network
 * stack: another host's is another place.
 */
export const addressesFor = (
  listening: { readonly host: string; readonly port: number },
  announced: ReadonlyArray<Announced>,
  isSameNetwork: boolean,
  own: (family: "IPv4" | "both") => ReadonlyArray<string> = ownAddresses,
): ReadonlyArray<string> => {
  const { host, port } = listening;
  if (announced.length > 0) return announced.map((place) => joinAddress(place.host, place.port || port));
  if (isWildcard(host)) {
    if (isSameNetwork) return [joinAddress(host === "::" ? "::1" : "127.0.0.1", port)];
    return own(host === "::" ? "both" : "IPv4")
      .slice(0, LANE_ADDRESSES_MAX)
      .map((address) => joinAddress(address, port));
  }
  return isLoopback(host) && !isSameNetwork ? [] : [joinAddress(host, port)];
};
