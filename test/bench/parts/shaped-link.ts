/** godwit beside QEMU's own multifd where the link is what is short. */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { qemuIsInstalled } from "@godwit/guest";
import * as Effect from "effect/Effect";
import { type BenchOptions, type Part, type Result, skipped } from "../part.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { type Link, linkObstacle, openLink } from "../shaped/link.ts";
import { CHANNELS, DOWNTIME_LIMIT, ENGINES, type Engine, IMAGES, type Sample, type Turn } from "../shaped/turns.ts";
import type { TurnsNews } from "../shaped/turns-process.ts";

const MIB = 1024 ** 2;
const LINK = { megabitsPerSecond: 1000, delayMs: 1 } as const;
const QEMUS = ENGINES.filter(({ by }) => by === "qemu");

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const obstacle = qemuIsInstalled() ? linkObstacle() : "there is no qemu-system-x86_64 in PATH";
  if (obstacle !== null) return skipped(obstacle);
  const memoryBytes = (quick ? 64 : 512) * MIB;
  const repetitions = quick ? 1 : 3;
  const link = yield* openLink(LINK);
  const turns = yield* atNearEnd(link, { memoryBytes, turns: repetitions + 1 }, progress);
  const result: Result = {
    isComplete: true,
    notes: [
      `Two network namespaces with a link of ${LINK.megabitsPerSecond / 1000} Gbit/s (tbf) and ${LINK.delayMs} ms each way (a process between two TUN devices, counted to nobody); source and nats-server at one end, destination at the other.`,
      `The same running guest: a QEMU with ${memoryBytes / MIB} MiB that writes 8 MiB/s in 16 MiB of it; ${CHANNELS} channels, level 1 of zstd, no bandwidth limit, downtime-limit ${DOWNTIME_LIMIT} ms; godwit without \`verify\`, since QEMU compares nothing.`,
      "Total time and downtime by each engine's own `query-migrate`. On the wire: all that both ends sent, with headers, as tbf counts it. CPU: of the source's side (QEMU, or RAM sender, workers, nats-server and coordinator) and the destination's (QEMU, or loader), without vCPUs, seconds for each GiB of guest memory.",
      `Medians of ${turns.length} turns of all engines; the ratio is to the better of QEMU's two in the same turn, with the least and the most. godwit's time is that of its \`query-migrate\`, its set-up included; QEMU's begins with the command.`,
    ],
    tables: [
      {
        titles: [
          "memory",
          "engine",
          "total, ms",
          "ratio",
          "downtime, ms",
          "on the wire, MiB",
          "CPU source",
          "CPU destination",
        ],
        rows: IMAGES.flatMap(({ name: image }) => ENGINES.map((engine) => rowOf(turns, image, engine))),
      },
    ],
    figures: { memoryBytes, channels: CHANNELS, link: LINK, downtimeLimit: DOWNTIME_LIMIT, turns },
  };
  return result;
});

const rowOf = (turns: ReadonlyArray<Turn>, image: string, engine: Engine): ReadonlyArray<string> => {
  const middle = (of: (sample: Sample) => number): number =>
    median(turns.map((turn) => of(turn[image]![engine.name]!)));
  const ratios = turns.map((turn) => {
    const best = Math.min(...QEMUS.map(({ name }) => turn[image]![name]!.totalTime));
    return turn[image]![engine.name]!.totalTime / best;
  });
  return [
    image,
    engine.name,
    middle(({ totalTime }) => totalTime).toFixed(0),
    showSpread(spreadOf(ratios), 2),
    middle(({ downtime }) => downtime).toFixed(0),
    middle(({ wireBytes }) => wireBytes / MIB).toFixed(0),
    middle(({ sourceCpu }) => sourceCpu).toFixed(2),
    middle(({ destinationCpu }) => destinationCpu).toFixed(2),
  ];
};

/** Measures in a process at the near end, so that all that it starts is there. */
const atNearEnd = (
  link: Link,
  options: { readonly memoryBytes: number; readonly turns: number },
  progress: BenchOptions["progress"],
): Effect.Effect<ReadonlyArray<Turn>, Error> =>
  Effect.callback((resume) => {
    const [execPath = "", ...entering] = link.near.enter;
    const program = fileURLToPath(new URL("../shaped/turns-process.ts", import.meta.url));
    const child = fork(program, [JSON.stringify({ ...options, link })], {
      execPath,
      execArgv: [...entering, process.execPath],
    });
    let news: TurnsNews = { failed: "the process at the near end of the link said nothing" };
    child.on("message", (message: TurnsNews) => {
      news = message;
      if ("progress" in message) progress(message.progress);
    });
    const gone = new Promise<void>((resolve) => {
      child.once("exit", () => {
        if ("measured" in news) resume(Effect.succeed(news.measured));
        else resume(Effect.fail(new Error("failed" in news ? news.failed : `it ended after: ${news.progress}`)));
        resolve();
      });
    });
    return Effect.promise(() => {
      child.kill("SIGTERM");
      return gone;
    });
  });

export const shapedLink: Part = { name: "shaped-link", title: "Over a link of 1 Gbit/s and 1 ms", run };
