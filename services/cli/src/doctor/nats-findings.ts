/** What answers where NATS should be, and whether records are safe there. */
import type { BucketReading } from "@godwit/fabric";
import { BUCKETS, type GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { bucketFinding } from "./bucket-finding.ts";
import { absent, type Finding, missing, works } from "./finding.ts";
import { greet } from "./nats-greeting.ts";
import type { MonitorReading } from "./nats-monitor.ts";
import { clusterSizeOf, syncFinding } from "./sync-finding.ts";

export interface NatsQuestions {
  readonly servers: string;
  /** The operator asked for these servers, so that they are not there stands in the way. */
  readonly named: boolean;
  /** The JetStream domain that the operator named; null: none. */
  readonly jsDomain: string | null;
  /** Logs in, and looks at the buckets. */
  readonly buckets: Effect.Effect<ReadonlyArray<BucketReading | null>, GodwitError>;
  readonly monitors: Effect.Effect<ReadonlyArray<MonitorReading>>;
}

export const natsFindings = Effect.fnUntraced(function* ({
  servers,
  named,
  jsDomain,
  buckets,
  monitors,
}: NatsQuestions): Effect.fn.Return<ReadonlyArray<Finding>> {
  const what = `NATS at ${servers.replace(/\/\/[^@/]*@/g, "//***@")}`;
  const greeting = yield* Effect.result(Effect.tryPromise({ try: () => greet(servers), catch: reasonOf }));
  if (greeting._tag === "Failure") {
    const reason = greeting.failure;
    return [named ? missing(what, reason) : absent(what, `${reason}; \`godwit up\` starts one, --nats names another`)];
  }
  const { version, cluster } = greeting.success;
  const read = yield* Effect.result(buckets);
  if (read._tag === "Failure") {
    const { code, reason, remedy } = read.failure;
    if (code === "nats-no-jetstream") return [missing(what, `version ${version} without JetStream; ${remedy}`)];
    return [missing(what, `${code}: ${reason}; ${remedy}`)];
  }
  const readings = yield* monitors;
  const keepers = { greeting: greeting.success, jsDomain };
  const size = clusterSizeOf(readings, keepers) ?? seenServers(read.success);
  const among = cluster === null ? "a single server" : `cluster ${cluster}`;
  const members = cluster === null ? among : `${among} of ${size} servers`;
  const detail =
    jsDomain === null
      ? `version ${version} with JetStream, ${members}`
      : `version ${version}, ${among}; JetStream of domain ${jsDomain} on ${size === 1 ? "one server" : `${size} servers`}`;
  return [
    works(what, detail),
    ...BUCKETS.map(({ name }, index) => bucketFinding(name, read.success[index] ?? null)),
    syncFinding(readings, keepers),
  ];
});

/** Clients are not told how many servers there are: those that hold copies are seen. */
const seenServers = (readings: ReadonlyArray<BucketReading | null>): string =>
  `at least ${new Set(readings.flatMap((reading) => (reading?.copies ?? []).map(({ server }) => server))).size || 1}`;

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
