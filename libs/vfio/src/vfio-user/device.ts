/**
 * A device behind a vfio-user server: libvfio-user's (QEMU, SPDK), or a simulated one of ours.
 *
 * What libvfio-user does that its protocol does not say, and what is done about it (docs/vfio-user.md has the measurements):
 *
 * - It takes a frame from its socket with one recv, so a frame that is not there whole is taken for garbage. Writes are small, one
 *   write a frame, and the reply is awaited; a server that announces `whole_frames` gets large ones.
 * - A SET echoes what was asked for, not what is: only a GET tells the state.
 * - A RESET leaves the migration state alone, and is refused in STOP and STOP_COPY: `reset` leads the device to RUNNING itself.
 * - The state outlives the connection: whoever opens a device asks for it first.
 */
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { DeviceError, type VfioDevice } from "../device.ts";
import type { DeviceSpec } from "../device-spec.ts";
import type { DeviceState, MigrationFeatures } from "../state-machine.ts";
import {
  type Capabilities,
  clientCapabilities,
  decodeCapabilities,
  VERSION_MAJOR,
  VERSION_MINOR,
} from "./capabilities.ts";
import { makeConfigSpace } from "./config-space.ts";
import { type Connection, connectVfioUser, isRefused } from "./connection.ts";
import { makeDmaLogging, probeDmaLogging } from "./dma-logging.ts";
import { decodeMigrationFeatures, FEATURES, getFeature, U64_BYTES } from "./feature.ts";
import { malformed } from "./header.ts";
import { makeMigrationState } from "./migration-state.ts";
import { findStreamSizes, makeMigrationStream } from "./migration-stream.ts";

export type VfioUserSpec = Extract<DeviceSpec, { provider: "vfio-user" | "simulated" }>;

export interface VfioUserOptions {
  /** For each request. Default: REQUEST_TIMEOUT of connection.ts. */
  readonly requestTimeout?: Duration.Input;
  /** Where the device has work to do: a SET of the state, a RESET, its stream. Default: DEVICE_TIMEOUT. */
  readonly deviceTimeout?: Duration.Input;
}

/**
 * How long a device may take where it has work to do. Before it changes its state it waits for its DMA and may have gigabytes to put in
 * order; a destination allocates what it needs while it takes its stream. The kernel sets no limit; whoever has less time interrupts.
 */
export const DEVICE_TIMEOUT: Duration.Input = "60 seconds";
/** States in which no stream is open: whatever follows begins a new one. From PRE_COPY to STOP_COPY it is the same one. */
const WITHOUT_STREAM: ReadonlyArray<DeviceState> = ["STOP", "RUNNING", "RUNNING_P2P"];

const NO_FEATURES: MigrationFeatures = { stopCopy: false, p2p: false, preCopy: false };

/**
 * Opens the device of a server; the scope's end closes the connection. A device that cannot be migrated opens too, with no feature.
 * `readConfig` promises the space as it was last readable, which in STOP_COPY is just before the SET that led there. `dmaLogging` is null
 * for foreign servers: through this connection their devices reach no memory (dma-logging.ts).
 */
export const openVfioUser = (
  spec: VfioUserSpec,
  options: VfioUserOptions = {},
): Effect.Effect<VfioDevice, DeviceError, Scope.Scope> =>
  Effect.flatMap(connectVfioUser(spec.name, spec.socket, options.requestTimeout), (connection) =>
    deviceOn(connection, spec, options),
  );

/** The device behind a connection that is open and on which nothing was said yet. */
export const deviceOn = (
  connection: Connection,
  spec: VfioUserSpec,
  options: VfioUserOptions,
): Effect.Effect<VfioDevice, DeviceError> =>
  Effect.gen(function* () {
    const capabilities = yield* negotiate(connection);
    const isOurs = capabilities.wholeFrames;
    const features = yield* connection.tryAsk({
      operation: "get migration features",
      request: getFeature(FEATURES.migration, U64_BYTES),
      read: ({ data }) => decodeMigrationFeatures(data),
    });
    const sizes = yield* findStreamSizes(connection, capabilities);
    const logs = isOurs && (yield* probeDmaLogging(connection));
    const config = makeConfigSpace(connection, { atOnce: isOurs });
    // While it may be asked: a device that is stopped does not tell how large the space is.
    yield* config.remember;
    const timeout = options.deviceTimeout ?? DEVICE_TIMEOUT;
    const { state, setState, reset } = makeMigrationState(spec.name, connection, timeout);
    const { read, write, renew } = makeMigrationStream(spec.name, connection, capabilities, timeout);
    return {
      name: spec.name,
      provider: spec.provider,
      features: isRefused(features) ? NO_FEATURES : features,
      state,
      setState: (to) => {
        if (to === "STOP_COPY") return Effect.andThen(config.remember, setState(to));
        return WITHOUT_STREAM.includes(to) ? Effect.andThen(setState(to), renew) : setState(to);
      },
      reset: Effect.andThen(reset, renew),
      read,
      write,
      ...sizes,
      readConfig: config.read,
      writeConfig: config.write,
      dmaLogging: logs ? makeDmaLogging(spec.name, connection, capabilities.transferBytesMax) : null,
    };
  });

const negotiate = (connection: Connection): Effect.Effect<Capabilities, DeviceError> =>
  connection
    .ask({
      operation: "negotiate version",
      request: { kind: "version", major: VERSION_MAJOR, minor: VERSION_MINOR, text: clientCapabilities() },
      read: ({ major, text }) =>
        major === VERSION_MAJOR ? decodeCapabilities(text) : malformed(`version ${major}, expected ${VERSION_MAJOR}`),
    })
    .pipe(
      Effect.mapError((error) =>
        error.errno === "ETIMEDOUT"
          ? new DeviceError({ ...error, reason: `${error.reason}; a server serves one client at a time` })
          : error,
      ),
    );
