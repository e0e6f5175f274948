/** Where the downtime goes: the median waterfall. */
import { qemuIsInstalled, startBuiltin } from "@godwit/guest";
import type { MigrationInfo, Waterfall, WaterfallPart } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { claimFreeMemory } from "../free-memory.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { COUNTED_BYTES, withPair } from "../qemu-pair.ts";
import { median } from "../samples.ts";
import { RANDOM } from "../shuttle.ts";
import { type NodeName, openTestbed, otherNode, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;
/** What a guest writes, bytes/s: as much as the boot guest of a QEMU does. */
const DIRTY_RATE = 8 * MIB;
const LANES = ["nats", "direct"] as const;
type LaneName = (typeof LANES)[number];
const GUESTS = ["builtin", "qemu"] as const;
type GuestKind = (typeof GUESTS)[number];

interface Sample {
  readonly guest: GuestKind;
  readonly lane: LaneName;
  readonly waterfall: Waterfall;
}

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 128 : 1024) * MIB;
  const repetitions = quick ? 3 : 7;
  const testbed = yield* openTestbed({ workers: CHANNELS });
  const samples: Sample[] = [];
  const parametersOf = (lane: LaneName) => ({ ...UNLIMITED, "multifd-channels": CHANNELS, lane });

  const name = "switchover";
  const directory = `${testbed.memoryDirectory}/a`;
  const dirtying = { dirtyRateBytesPerSecond: DIRTY_RATE, workingSetBytes: COUNTED_BYTES };
  testbed.register("a", yield* startBuiltin({ name, memoryBytes, mix: RANDOM, ...dirtying, directory }));
  let at: NodeName = "a";
  const moveBuiltin = (lane: LaneName) =>
    Effect.suspend(() => {
      at = otherNode(at);
      claimFreeMemory(testbed.memoryDirectory, memoryBytes);
      return testbed.move(name, at, parametersOf(lane));
    });
  const moveQemu = (lane: LaneName, turn: number) =>
    withPair(testbed, `switchover${turn}-${lane}`, memoryBytes, (source, destination) => {
      testbed.register("a", source.spec);
      testbed.register("b", destination.spec);
      return testbed.move(source.spec.name, "b", parametersOf(lane));
    });
  const guests = GUESTS.filter((guest) => guest === "builtin" || qemuIsInstalled());

  // The first turn warms everybody up, and is not counted.
  for (let turn = 0; turn <= repetitions; turn++) {
    for (const guest of guests) {
      for (const lane of LANES) {
        const info: MigrationInfo = yield* guest === "builtin" ? moveBuiltin(lane) : moveQemu(lane, turn);
        progress(`${guest}, ${lane}: ${info.downtime} ms${turn === 0 ? " (warming up)" : ""}`);
        if (info.waterfall === undefined) return yield* Effect.fail(new Error("a migration has told no waterfall"));
        if (turn > 0) samples.push({ guest, lane, waterfall: info.waterfall });
      }
    }
  }
  const columns = guests.flatMap((guest) => LANES.map((lane) => ({ guest, lane })));
  const cell = (of: (waterfall: Waterfall) => number | undefined) =>
    columns.map(({ guest, lane }) => {
      const mine = samples.filter((sample) => sample.guest === guest && sample.lane === lane);
      const values = mine.flatMap(({ waterfall }) => of(waterfall) ?? []);
      return values.length === 0 ? "" : median(values).toFixed(0);
    });
  const result: Result = {
    isComplete: true,
    notes: [
      `A guest of ${memoryBytes / MIB} MiB, nearly all of it random, that writes ${DIRTY_RATE / MIB} MiB/s in ${COUNTED_BYTES / MIB} MiB; ${CHANNELS} channels, no bandwidth limit, otherwise the defaults (\`verify\` is on). builtin: one that goes to and fro; QEMU: a new pair each time.`,
      `Microseconds, medians of ${repetitions} turns of all columns, of each part alone: medians do not add up. \`rest\`: what the two messages between the hosts were on their way.`,
      "In brackets: went on beside the others.",
      ...(guests.length < GUESTS.length ? ["There is no qemu-system-x86_64 in PATH."] : []),
    ],
    tables: [
      {
        titles: ["", ...columns.map(({ guest, lane }) => `${guest === "qemu" ? "QEMU" : guest}, ${lane}`)],
        rows: [
          ...namesOf(samples).map(({ part, side, beside }) => [
            `${beside ? `(${part})` : part}, ${side}`,
            ...cell(({ parts }) => parts.find((found) => found.part === part && found.side === side)?.length),
          ]),
          ["rest", ...cell(({ rest }) => rest)],
          ["all", ...cell(({ total }) => total)],
        ],
      },
    ],
    figures: { memoryBytes, channels: CHANNELS, samples },
  };
  return result;
});

/** All parts of all samples; in the order of their begin, those that went on beside behind the others. */
const namesOf = (samples: ReadonlyArray<Sample>): ReadonlyArray<WaterfallPart> => {
  const names = new Map<string, WaterfallPart>();
  for (const { waterfall } of samples)
    for (const part of waterfall.parts) {
      const key = `${part.side}/${part.part}`;
      if (!names.has(key)) names.set(key, part);
    }
  return [...names.values()].sort((a, b) => Number(a.beside ?? false) - Number(b.beside ?? false) || a.begin - b.begin);
};

export const switchover: Part = { name: "switchover", title: "Where the downtime goes", run };
