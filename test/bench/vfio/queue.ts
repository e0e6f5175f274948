/** What waits at the destination, and in how much memory, while a worker sleeps or dies in the middle of device state. */
import type { MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type { BenchOptions } from "../part.ts";
import { forgetPeak, peakBytes } from "../process-usage.ts";
import { otherNode, type Testbed } from "../testbed.ts";
import { watchDeviceBytes } from "./device-bytes.ts";
import { bringDeviceGuest } from "./device-guest.ts";

const MIB = 1024 ** 2;
const CHANNELS = 4;
const DEVICES = 2;
const STATE_BYTES = 256e6;
const LIMIT_BYTES = 8 * MIB;
/** Who sleeps or dies; any worker would do. */
const VICTIM = "1";

export interface QueueRun {
  readonly name: string;
  /** The most that ever waited of one device, bytes. */
  readonly queuedPeak: number;
  /** Resident memory of the agent at the destination, bytes. */
  readonly agentPeak: number;
  /** Bytes/s. */
  readonly rate: number;
  readonly sentAgain: number;
}

export interface QueueFigures {
  readonly limitBytes: number;
  readonly runs: ReadonlyArray<QueueRun>;
}

/** What befalls the worker; null: nothing. */
const BLOWS: ReadonlyArray<{ readonly name: string; readonly signal: NodeJS.Signals | null }> = [
  { name: "works", signal: null },
  { name: "sleeps", signal: "SIGSTOP" },
  { name: "dies", signal: "SIGKILL" },
];

export const measureQueue = Effect.fnUntraced(function* (
  testbed: Testbed,
  { quick, progress }: BenchOptions,
): Effect.fn.Return<QueueFigures, unknown> {
  const stateBytes = quick ? STATE_BYTES / 8 : STATE_BYTES;
  const guest = yield* bringDeviceGuest(testbed, {
    name: "queue",
    memoryBytes: 16 * MIB,
    dirtyRateBytesPerSecond: 0,
    devices: Array.from({ length: DEVICES }, (_, index) => ({ name: `vfio${index}`, stateBytes, seed: index + 1 })),
  });
  const runs: QueueRun[] = [];
  for (const { name, signal } of BLOWS) {
    runs.push({ name, ...(yield* moveUnder(testbed, guest, signal)) });
    const { queuedPeak, agentPeak } = runs.at(-1)!;
    progress(
      `a worker ${name}: ${(queuedPeak / MIB).toFixed(1)} MiB queued, agent ${(agentPeak / MIB).toFixed(0)} MiB`,
    );
    yield* testbed.allUp;
  }
  return { limitBytes: LIMIT_BYTES, runs };
});

type Guest = Effect.Success<ReturnType<typeof bringDeviceGuest>>;

/** In the middle: a fifth has gone, and something is left. */
const isMiddle = ({ vfio }: MigrationInfo): boolean =>
  (vfio?.source ?? []).some(
    (info) => info.transferred > 0.2 * (info.transferred + info["stop-copy-bytes"]) && info["stop-copy-bytes"] > MIB,
  );

const moveUnder = (testbed: Testbed, guest: Guest, signal: NodeJS.Signals | null) =>
  Effect.scoped(
    Effect.gen(function* () {
      const victim = testbed.pidOf("multifd-worker", guest.at(), VICTIM);
      const agent = testbed.pidOf("vfio-agent", otherNode(guest.at()), "0");
      const watched = yield* watchDeviceBytes(testbed.fabric);
      forgetPeak(agent);
      let queuedPeak = 0;
      let isStruck = signal === null;
      const seen = (info: MigrationInfo): void => {
        for (const device of info.vfio?.destination ?? [])
          queuedPeak = Math.max(queuedPeak, device["queued-peak"] ?? 0);
        if (isStruck || signal === null || !isMiddle(info)) return;
        isStruck = true;
        process.kill(victim, signal);
      };
      yield* guest
        .move({ "multifd-channels": CHANNELS, "x-migration-max-queued-bytes": LIMIT_BYTES }, { seen })
        .pipe(
          Effect.ensuring(
            Effect.sync(() => (signal === "SIGSTOP" && isStruck ? process.kill(victim, "SIGCONT") : true)),
          ),
        );
      if (!isStruck) return yield* Effect.fail(new Error("all was over before a worker could be struck"));
      const { bytes, seconds, sentAgain } = yield* watched;
      return { queuedPeak, agentPeak: peakBytes(agent), rate: bytes / seconds, sentAgain };
    }),
  );
