/** What nats-server tells on its monitoring port, and no client is told: above all whether it writes to the disk before it acknowledges. */
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";

/** A server as it is configured. */
export interface MonitoredServer {
  readonly id: string;
  readonly name: string;
  readonly version: string;
  readonly cluster: string | null;
  /** Domain of its JetStream; null: none. */
  readonly domain: string | null;
  /** Servers with JetStream in its cluster; null: it has not said. */
  readonly clusterSize: number | null;
  /** "always", a number of ms, or null when the server does not say (JetStream is off, or it is too old). */
  readonly sync: "always" | number | null;
}

export type MonitorReading =
  | { readonly _tag: "Read"; readonly url: string; readonly server: MonitoredServer }
  | { readonly _tag: "Failed"; readonly url: string; readonly reason: string };

/** How long a server may take to answer, ms. */
const ANSWER_MS = 2000;
const NANOSECONDS_PER_MS = 1e6;

const Varz = Schema.Struct({
  server_id: Schema.String,
  server_name: Schema.String,
  version: Schema.String,
  cluster: Schema.optionalKey(Schema.Struct({ name: Schema.optionalKey(Schema.String) })),
  jetstream: Schema.optionalKey(
    Schema.Struct({
      config: Schema.optionalKey(
        Schema.Struct({
          domain: Schema.optionalKey(Schema.String),
          sync_always: Schema.optionalKey(Schema.Boolean),
          sync_interval: Schema.optionalKey(Schema.Finite),
        }),
      ),
      meta: Schema.optionalKey(Schema.Struct({ cluster_size: Schema.optionalKey(Schema.Int) })),
    }),
  ),
});
const decode = Schema.decodeUnknownSync(Varz);

/** Asks every monitoring port, `http://host:8222`; several are separated by commas. Never fails. */
export const readMonitors = (urls: string): Effect.Effect<ReadonlyArray<MonitorReading>> =>
  Effect.forEach(urls.split(","), (text) => Effect.promise(() => readMonitor(text.trim().replace(/\/+$/, ""))), {
    concurrency: "unbounded",
  });

const readMonitor = async (url: string): Promise<MonitorReading> => {
  try {
    const address = `${url.includes("://") ? url : `http://${url}`}/varz`;
    const answer = await fetch(address, { signal: AbortSignal.timeout(ANSWER_MS) });
    if (!answer.ok) throw new Error(`it answers with status ${answer.status}`);
    return { _tag: "Read", url, server: parseVarz(await answer.json()) };
  } catch (error) {
    return { _tag: "Failed", url, reason: reasonOf(error) };
  }
};

/** What the ports say that the operator has named; nothing when none was. */
export const monitorsOf = (values: { readonly "nats-monitor": string | null }) =>
  values["nats-monitor"] === null ? Effect.succeed([]) : readMonitors(values["nats-monitor"]);

/** Throws when it is not what a nats-server says. */
export const parseVarz = (document: unknown): MonitoredServer => {
  const { server_id, server_name, version, cluster, jetstream } = decode(document);
  const interval = jetstream?.config?.sync_interval;
  return {
    id: server_id,
    name: server_name,
    version,
    cluster: cluster?.name ?? null,
    domain: jetstream?.config?.domain ?? null,
    clusterSize: jetstream?.meta?.cluster_size ?? null,
    sync:
      jetstream?.config?.sync_always === true
        ? "always"
        : interval === undefined
          ? null
          : interval / NANOSECONDS_PER_MS,
  };
};

/** `fetch` says only that it failed; why stands in the cause. */
const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error && error.cause.message !== "" ? error.cause.message : error.message;
};
