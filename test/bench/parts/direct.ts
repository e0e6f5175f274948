/** How much of what a TCP connection can carry arrives in guest memory by the direct lane. */
import { closeSync, openSync, rmSync } from "node:fs";
import type { MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { openBareDirect } from "../bare/direct.ts";
import { claimFreeMemory } from "../free-memory.ts";
import { fillRandomly } from "../memory-images.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { openShuttle, RANDOM } from "../shuttle.ts";
import { openTestbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = [1, 2, 4] as const;
const WORKERS = 4;
interface Pair {
  /** MiB/s of guest pages, and of payload. */
  readonly channelPath: number;
  readonly bare: number;
  /** Packets that went by NATS all the same. */
  readonly byNats: number;
}

const byNats = ({ channels = [] }: MigrationInfo): number =>
  channels.reduce((sum, { lanes = [] }) => sum + lanes.reduce((all, { nats }) => all + nats, 0), 0);

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 128 : 512) * MIB;
  const repetitions = quick ? 1 : 5;
  const testbed = yield* openTestbed({ workers: WORKERS });
  const shuttle = yield* openShuttle(testbed, { name: "direct", memoryBytes, mix: RANDOM, workers: WORKERS });

  const bare = Effect.fnUntraced(function* (senders: number) {
    const [from, to] = ["from", "to"].map((name) => `${testbed.memoryDirectory}/bare-${name}`) as [string, string];
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        for (const path of [from, to]) closeSync(openSync(path, "w", 0o600));
        fillRandomly(from, 0, memoryBytes);
      }),
      () =>
        Effect.sync(() => {
          for (const path of [from, to]) rmSync(path, { force: true });
        }),
    );
    claimFreeMemory(testbed.memoryDirectory, memoryBytes);
    const move = yield* openBareDirect({ senders, from, to, bytes: memoryBytes });
    return memoryBytes / MIB / (yield* move);
  }, Effect.scoped);

  const measure = Effect.fnUntraced(function* (channels: number) {
    const pairs: Pair[] = [];
    // The first pair warms everybody up, and is not counted.
    for (let pair = 0; pair <= repetitions; pair++) {
      const bareRate = yield* bare(channels);
      const parameters = { ...UNLIMITED, lane: "direct", "multifd-channels": channels };
      const { info, bytes, seconds } = yield* shuttle.pass(parameters);
      const [rate, others] = [bytes / MIB / seconds, byNats(info)];
      const line = `${channels} channels: ${rate.toFixed(0)} / ${bareRate.toFixed(0)} MiB/s = ${(rate / bareRate).toFixed(2)}`;
      progress(`${line}, ${others} packets by NATS${pair === 0 ? " (warming up)" : ""}`);
      if (pair > 0) pairs.push({ channelPath: rate, bare: bareRate, byNats: others });
    }
    return { channels, pairs, ratio: spreadOf(pairs.map((pair) => pair.channelPath / pair.bare)) };
  });

  const measured = yield* Effect.forEach(CHANNELS, measure);
  const result: Result = {
    isComplete: true,
    notes: [
      `Channel path: the first pass over ${memoryBytes / MIB} MiB of random pages of an idle builtin guest with \`lane: direct\`, from the first work item to the last acknowledgement, both seen on NATS: multifd worker processes read guest memory, look for zero pages, make checksums and send; a loader process checks, writes guest memory and acknowledges. Every page is checked by the guest afterwards.`,
      "Bare: as many processes as channels read the same bytes from a file in a tmpfs, 256 KiB at a time, and send them over TCP to one process that writes them into another such file, new each time as a guest's memory is; no checksums, no zero pages, no messages.",
      "Before each pass the machine's free memory is claimed once: a hypervisor that takes it back makes the first write to it slow, for whoever writes.",
      `Medians of ${repetitions} pairs that were run in turn; of the ratio also the least and the most.`,
    ],
    tables: [
      {
        titles: ["channels", "direct lane, MiB/s", "bare TCP, MiB/s", "ratio", "packets by NATS"],
        rows: measured.map(({ channels, pairs, ratio }) => [
          String(channels),
          median(pairs.map((pair) => pair.channelPath)).toFixed(0),
          median(pairs.map((pair) => pair.bare)).toFixed(0),
          showSpread(ratio, 2),
          median(pairs.map((pair) => pair.byNats)).toFixed(0),
        ]),
      },
    ],
    figures: { memoryBytes, measured },
  };
  return result;
});

export const direct: Part = { name: "direct", title: "Direct lane against bare TCP", run };
