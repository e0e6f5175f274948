/** A NATS server in a container, with JetStream as godwit wants it, and the buckets. */
import { setUpBuckets } from "@godwit/fabric";
import { BUCKETS, type BucketDefinition } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { GenericContainer, Wait } from "testcontainers";

// Testcontainers' own helper would be fetched from a registry; what is started here is stopped here.
process.env["TESTCONTAINERS_RYUK_DISABLED"] ??= "true";

const CLIENT_PORT = 4222;
const CONFIGURATION = "jetstream { store_dir: /tmp/jetstream, sync_interval: always }\n";
const CONFIGURATION_PATH = "/nats-container.conf";
/** What a container may take to start on a busy machine, ms. */
const START_MS = 60_000;

export interface NatsContainer {
  readonly url: string;
  readonly close: () => Promise<void>;
}

export const startNatsContainer = async (
  image: string,
  buckets: ReadonlyArray<BucketDefinition> = BUCKETS,
): Promise<NatsContainer> => {
  const container = await new GenericContainer(image)
    .withCommand(["--config", CONFIGURATION_PATH])
    .withCopyContentToContainer([{ content: CONFIGURATION, target: CONFIGURATION_PATH }])
    .withExposedPorts(CLIENT_PORT)
    .withWaitStrategy(Wait.forLogMessage(/Server is ready/))
    .withStartupTimeout(START_MS)
    .start();
  const url = `nats://${container.getHost()}:${container.getMappedPort(CLIENT_PORT)}`;
  const close = async (): Promise<void> => {
    await container.stop();
  };
  try {
    await Effect.runPromise(setUpBuckets({ servers: url, name: "test setup" }, buckets));
  } catch (error) {
    await close();
    throw error;
  }
  return { url, close };
};
