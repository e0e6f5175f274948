/** The bytes of a device's migration through a vfio-user server, and how many of them there are. */
import type * as Duration from "effect/Duration";
import * as Effect from "effect/Effect";
import { DeviceError, type PrecopyInfo, type VfioDevice } from "../device.ts";
import type { Capabilities } from "./capabilities.ts";
import { type Connection, isRefused, type Question, REFUSED, SMALL_WRITE_BYTES } from "./connection.ts";
import { decodeU64, FEATURES, getFeature, U64_BYTES } from "./feature.ts";
import { malformed } from "./header.ts";

export interface MigrationStream extends Pick<VfioDevice, "read" | "write"> {
  /** A new stream begins with the next state that has one. */
  readonly renew: Effect.Effect<void>;
}

/**
 * `device` is the name in errors.
 *
 * Trap: a read that ran out of time or was interrupted may still take bytes off the stream, and a write that failed may have been taken in
 * part. Whatever came after would lie at the wrong place, so nothing does until `renew`.
 */
export const makeMigrationStream = (
  device: string,
  connection: Connection,
  { transferBytesMax, wholeFrames }: Capabilities,
  timeout: Duration.Input,
): MigrationStream => {
  const writeBytesMax = wholeFrames ? transferBytesMax : Math.min(transferBytesMax, SMALL_WRITE_BYTES);
  /** Whether the place in the stream is known; between sending and the answer it is not. */
  let inDoubt = false;
  const fail = (operation: string, errno: string, reason: string) =>
    Effect.fail(new DeviceError({ device, operation, errno, reason }));
  const LOST = "an earlier read or write left the place in the stream unknown; only a new stream helps";

  const read: VfioDevice["read"] = Effect.fnUntraced(function* (into) {
    if (inDoubt) return yield* fail("read", "EIO", LOST);
    // 0 would be the end of the stream.
    if (into.length === 0) return yield* fail("read", "EINVAL", "into no bytes");
    const size = Math.min(into.length, transferBytesMax);
    inDoubt = true;
    const count = yield* connection.tryAsk({
      operation: "read",
      request: { kind: "mig-data-read", size },
      read: ({ data }) => {
        if (data.length > size) return malformed(`${data.length} bytes of migration data, asked for ${size}`);
        into.set(data);
        return data.length;
      },
      timeout,
    });
    inDoubt = false;
    return isRefused(count) ? yield* fail("read", count.errno, REFUSED) : count;
  });

  const write: VfioDevice["write"] = Effect.fnUntraced(function* (bytes) {
    if (inDoubt) return yield* fail("write", "EIO", LOST);
    inDoubt = true;
    for (let at = 0; at < bytes.length; at += writeBytesMax) {
      const data = bytes.subarray(at, at + writeBytesMax);
      const request = { kind: "mig-data-write", data } as const;
      yield* connection.ask({ operation: "write", request, read: () => undefined, timeout });
    }
    inDoubt = false;
  });

  const renew = Effect.sync(() => {
    inDoubt = false;
  });
  return { read, write, renew };
};

/**
 * What a device can tell about the length of its stream. vfio-user has a word for neither; servers of ours have both. Each is tried once,
 * and one that is refused is not asked for again.
 */
export const findStreamSizes = (
  connection: Connection,
  capabilities: Capabilities,
): Effect.Effect<Pick<VfioDevice, "precopyInfo" | "stopCopyBytes">, DeviceError> =>
  Effect.gen(function* () {
    const precopyQuestion: Question<"precopy-info", PrecopyInfo> = {
      operation: "get precopy info",
      request: { kind: "precopy-info" },
      read: ({ initialBytes, dirtyBytes }) => ({ initialBytes, dirtyBytes }),
    };
    const sizeQuestion: Question<"feature", { readonly value: number }> = {
      operation: "get migration data size",
      request: getFeature(FEATURES.migrationDataSize, U64_BYTES),
      read: ({ data }) => decodeU64(data),
    };
    const hasPrecopyInfo = capabilities.precopyInfo || !isRefused(yield* connection.tryAsk(precopyQuestion));
    const hasSize = !isRefused(yield* connection.tryAsk(sizeQuestion));
    return {
      precopyInfo: hasPrecopyInfo ? connection.ask(precopyQuestion) : Effect.succeed(null),
      stopCopyBytes: hasSize ? Effect.map(connection.ask(sizeQuestion), ({ value }) => value) : Effect.succeed(null),
    };
  });
