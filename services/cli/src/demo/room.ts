/** What a demo needs of this machine, looked at before anything is started. */
import { freeBytes, probeHost } from "@godwit/host";
import { GodwitError, type Parameters } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { formatBytes } from "../terminal/format.ts";

/** Sockets, logs and device state beside the memory, bytes. */
const BESIDE_BYTES = 8 * 1024 ** 2;

export interface Room {
  readonly directory: string;
  /** Copies of the guest's memory that may have to lie there: source, destination, and the content tracker's shadow. */
  readonly copies: 2 | 3;
  readonly rootWouldAdd: ReadonlyArray<string>;
}

const failed = (code: GodwitError["code"], reason: string): GodwitError =>
  new GodwitError({ code, actor: "cli", step: "look for room", reason });

/** Fails with `no-space` and what would fit, or with `not-supported` when no memory file can be made at all. */
export const lookForRoom = (
  directory: string,
  memoryBytes: number,
  tracker: Parameters["dirty-tracker"],
  guestsTrackThemselves: boolean,
): Effect.Effect<Room, GodwitError> =>
  Effect.gen(function* () {
    const { free, host } = yield* Effect.try({
      try: () => ({ free: freeBytes(directory), host: probeHost() }),
      catch: (cause) => failed("not-supported", cause instanceof Error ? cause.message : String(cause)),
    });
    const bits = (guestsTrackThemselves && host.userfaultfd._tag === "Works") || host.softDirty._tag === "Works";
    const copies = tracker === "content" || (tracker === "auto" && !bits) ? 3 : 2;
    const needed = copies * memoryBytes + BESIDE_BYTES;
    if (free < needed) {
      const fits = Math.floor((free - BESIDE_BYTES) / copies / 1024 ** 2);
      const what = copies === 3 ? "source, destination and the content tracker's shadow" : "source and destination";
      return yield* failed(
        "no-space",
        `${directory} has ${formatBytes(free)} free, and a guest of ${formatBytes(memoryBytes)} needs ${formatBytes(needed)} there (${what}); ` +
          (fits >= 1 ? `--memory ${fits}MiB would fit` : "make it larger (docker run --shm-size=2g)") +
          ", or name another directory with --guest-dir",
      );
    }
    return { directory, copies, rootWouldAdd: host.rootWouldAdd };
  });
