/** What is measured at the near end of the link: each engine in turn moves the same guest to the far end. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { localNats } from "@godwit/fabric/local-nats";
import type { TestQemu } from "@godwit/guest";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { actorsOf } from "../actors.ts";
import { fillCompressibly, fillRandomly } from "../memory-images.ts";
import { cpuSeconds, cpuSecondsWithout } from "../process-usage.ts";
import { migrateByQemu } from "../qemu-multifd.ts";
import { withPair } from "../qemu-pair.ts";
import { openTestbed, UNCOMPARED, UNLIMITED } from "../testbed.ts";
import { type Link, sentBytes } from "./link.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
export const CHANNELS = 2;
/** ms; all engines stop the guest when they expect to be done within it. */
export const DOWNTIME_LIMIT = 300;

export const ENGINES = [
  { name: "QEMU, none", by: "qemu", compression: "none" },
  { name: "QEMU, zstd", by: "qemu", compression: "zstd" },
  { name: "godwit direct, auto", by: "godwit", lane: "direct", compression: "auto" },
  { name: "godwit direct, zstd", by: "godwit", lane: "direct", compression: "zstd" },
  { name: "godwit nats, auto", by: "godwit", lane: "nats", compression: "auto" },
  { name: "godwit nats, zstd", by: "godwit", lane: "nats", compression: "zstd" },
] as const;
export type Engine = (typeof ENGINES)[number];

export const IMAGES = [
  { name: "3:1 compressible", fill: fillCompressibly },
  { name: "random", fill: fillRandomly },
] as const;

export interface Sample {
  /** By the engine's own account, ms. */
  readonly totalTime: number;
  readonly downtime: number;
  /** On the link, both ways. */
  readonly wireBytes: number;
  /** CPU seconds for each GiB of guest memory, without those of the vCPU. */
  readonly sourceCpu: number;
  readonly destinationCpu: number;
}

/** One turn: a sample of each engine for each image. */
export type Turn = Readonly<Record<string, Readonly<Record<string, Sample>>>>;

export interface TurnsOptions {
  readonly link: Link;
  readonly memoryBytes: number;
  /** Of them the first is not in the result: it warms everybody up. */
  readonly turns: number;
  readonly progress: (line: string) => void;
}

const isVcpu = (thread: string): boolean => thread.startsWith("CPU ");

/** To be run at the near end: what it starts is there, too, save node b and the destinations. */
export const measureTurns = Effect.fnUntraced(function* ({
  link,
  memoryBytes,
  turns,
  progress,
}: TurnsOptions): Effect.fn.Return<ReadonlyArray<Turn>, unknown, Scope.Scope> {
  const { near, far } = link;
  const testbed = yield* openTestbedOverLink(link);
  const actors = actorsOf(testbed, "a", CHANNELS);
  const spentByGodwit = (side: "source" | "destination") => () =>
    actors
      .filter(({ name }) => (name === "loader") === (side === "destination"))
      .reduce((sum, { pids }) => sum + pids.reduce((all, pid) => all + cpuSeconds(pid), 0), 0);
  const spentByQemu =
    ({ pid }: TestQemu) =>
    () =>
      cpuSecondsWithout(pid() ?? Number.NaN, isVcpu);

  const move = (engine: Engine, source: TestQemu, destination: TestQemu) => {
    if (engine.by === "qemu")
      return migrateByQemu(source.spec.qmp, destination.spec.qmp, {
        channels: CHANNELS,
        downtimeLimit: DOWNTIME_LIMIT,
        compression: engine.compression,
        address: far.address,
      });
    testbed.register("a", source.spec);
    testbed.register("b", destination.spec);
    const parameters = {
      ...UNLIMITED,
      "multifd-channels": CHANNELS,
      "multifd-compression": engine.compression,
      lane: engine.lane,
      "downtime-limit": DOWNTIME_LIMIT,
    };
    return Effect.map(
      testbed.move(source.spec.name, "b", parameters, undefined, "unverified", UNCOMPARED),
      ({ "total-time": totalTime, downtime = Number.NaN }) => ({ totalTime, downtime }),
    );
  };
  const sampleOf = (engine: Engine) =>
    Effect.fnUntraced(function* (source: TestQemu, destination: TestQemu) {
      const spent =
        engine.by === "qemu"
          ? [spentByQemu(source), spentByQemu(destination)]
          : [spentByGodwit("source"), spentByGodwit("destination")];
      const read = () => [sentBytes(near) + sentBytes(far), ...spent.map((seconds) => seconds())];
      const before = read();
      const { totalTime, downtime } = yield* move(engine, source, destination);
      const [wireBytes, sourceCpu, destinationCpu] = read().map((after, at) => after - before[at]!);
      const perGiB = GIB / memoryBytes;
      const sample: Sample = {
        totalTime,
        downtime,
        wireBytes: wireBytes!,
        sourceCpu: sourceCpu! * perGiB,
        destinationCpu: destinationCpu! * perGiB,
      };
      return sample;
    });

  const measured: Turn[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const result: Record<string, Record<string, Sample>> = {};
    for (const [at, image] of IMAGES.entries())
      for (const [by, engine] of ENGINES.entries()) {
        const name = `shaped${turn}-${at}-${by}`;
        const taken = yield* withPair(testbed, name, memoryBytes, sampleOf(engine), {
          fill: image.fill,
          enter: far.enter,
        });
        result[image.name] = { ...result[image.name], [engine.name]: taken };
        const { totalTime, downtime, wireBytes } = taken;
        const line = `${image.name}, ${engine.name}: ${totalTime} ms (${downtime} ms), ${(wireBytes / MIB).toFixed(0)} MiB`;
        progress(turn === 0 ? `${line} (warming up)` : line);
      }
    if (turn > 0) measured.push(result);
  }
  return measured;
});

const openTestbedOverLink = Effect.fnUntraced(function* ({ near, far }: Link) {
  const storeDir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "godwit-bench-nats-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true })),
  );
  const { url } = yield* localNats({ host: near.address, storeDir });
  return yield* openTestbed({ workers: CHANNELS, apart: { enter: far.enter, natsUrl: url } });
});
