/** Whether the servers write to the disk before they acknowledge: known only from their monitoring ports, and never taken for granted. */
import { isSupportedVersion, NATS_VERSION_MIN } from "@godwit/fabric";
import { formatMs } from "../terminal/format.ts";
import { absent, type Finding, missing, works } from "./finding.ts";
import type { NatsGreeting } from "./nats-greeting.ts";
import type { MonitoredServer, MonitorReading } from "./nats-monitor.ts";

const WHAT = "sync_interval";
const HOW =
  "clients are not told; set `http: 127.0.0.1:8222` in nats-server.conf, and name the port of each server: --nats-monitor http://127.0.0.1:8222";

/** Which servers keep the records. */
export interface Keepers {
  /** Of a server that we talk to. */
  readonly greeting: NatsGreeting;
  /** The JetStream domain that the buckets are in, which may be another cluster's; null: that of the servers that we talk to. */
  readonly jsDomain: string | null;
}

/** Those among them that keep the records: the one we talk to, and those in one cluster with it, or those of the domain. */
const ours = (
  readings: ReadonlyArray<MonitorReading>,
  { greeting, jsDomain }: Keepers,
): ReadonlyArray<MonitoredServer> => {
  const servers = readings.flatMap((reading) => (reading._tag === "Read" ? [reading.server] : []));
  const found = servers.filter(({ id, cluster, domain }) => {
    if (jsDomain !== null) return domain === jsDomain;
    return greeting.cluster === null ? id === greeting.serverId : cluster === greeting.cluster;
  });
  return [...new Map(found.map((server) => [server.id, server])).values()];
};

/** Servers of the cluster, as far as a monitoring port has told; null: not known. */
export const clusterSizeOf = (readings: ReadonlyArray<MonitorReading>, keepers: Keepers): number | null => {
  if (keepers.jsDomain === null && keepers.greeting.cluster === null) return 1;
  const sizes = ours(readings, keepers).flatMap(({ cluster, clusterSize }) => {
    if (cluster === null) return [1];
    return clusterSize === null ? [] : [clusterSize];
  });
  return sizes.length === 0 ? null : Math.max(...sizes);
};

/** No readings: no port was named. */
export const syncFinding = (readings: ReadonlyArray<MonitorReading>, keepers: Keepers): Finding => {
  if (readings.length === 0) return absent(WHAT, `not known: ${HOW}`);
  const servers = ours(readings, keepers);
  const known = servers.filter(({ sync }) => sync !== null);
  const lazy = known.filter(({ sync }) => sync !== "always");
  const old = servers.filter(({ version }) => !isSupportedVersion(version));
  if (old.length > 0) {
    const versions = old.map(({ name, version }) => `${name} is nats-server ${version}`).join(", ");
    return missing(WHAT, `${versions}; older than ${NATS_VERSION_MIN}, which can lose or double records: upgrade`);
  }
  if (lazy.length > 0) {
    const intervals = lazy.map(({ name, sync }) => `${formatMs(Number(sync))} at ${name}`).join(", ");
    return missing(WHAT, `${intervals}: a power cut could undo who runs a guest; set sync_interval: always`);
  }
  const size = clusterSizeOf(readings, keepers);
  const names = known.map(({ name }) => name).join(", ");
  if (known.length > 0 && size !== null && known.length >= size) return works(WHAT, `always, at ${names}`);
  const why = readings.flatMap((reading) => {
    if (reading._tag === "Failed") return [`${reading.url}: ${reading.reason}`];
    if (!servers.some(({ id }) => id === reading.server.id))
      return [`${reading.url} is ${reading.server.name}, which does not belong to this NATS`];
    return reading.server.sync === null ? [`${reading.server.name} does not say`] : [];
  });
  const part = known.length === 0 ? "not known" : `not known for all of ${size ?? "the"} servers (always, at ${names})`;
  return absent(WHAT, [part, ...why].join(": ").concat(`; ${HOW}`));
};
