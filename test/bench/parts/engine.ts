/** godwit beside QEMU's own multifd. */
import { qemuIsInstalled } from "@godwit/guest";
import * as Effect from "effect/Effect";
import { type BenchOptions, type Part, type Result, skipped } from "../part.ts";
import { migrateByQemu, type QemuMigration } from "../qemu-multifd.ts";
import { COUNTED_BYTES, withPair } from "../qemu-pair.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { openTestbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;
/** ms; both engines stop the guest when they expect to be done within it. */
const DOWNTIME_LIMIT = 300;
/** On a busy machine a scan of memory may take longer than the downtime limit allows: then nobody shall wait two minutes for the failure, ms. */
const IMPATIENT = { "stall-timeout": 20_000 } as const;

const LANES = ["nats", "direct"] as const;
/** Each engine once; null where a migration by godwit failed. */
type Turn = Readonly<Record<(typeof LANES)[number], QemuMigration | null>> & { readonly qemu: QemuMigration };

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  if (!qemuIsInstalled()) return skipped("there is no qemu-system-x86_64 in PATH");
  const memoryBytes = (quick ? 128 : 1024) * MIB;
  const repetitions = quick ? 1 : 3;
  const testbed = yield* openTestbed({ workers: CHANNELS });
  const turns: Turn[] = [];
  const failures: string[] = [];
  const byGodwit = (lane: (typeof LANES)[number], turn: number) =>
    withPair(testbed, `engine${turn}-${lane}`, memoryBytes, (source, destination) =>
      Effect.gen(function* () {
        testbed.register("a", source.spec);
        testbed.register("b", destination.spec);
        const parameters = {
          ...UNLIMITED,
          "multifd-channels": CHANNELS,
          lane,
          "downtime-limit": DOWNTIME_LIMIT,
          ...IMPATIENT,
        };
        const info = yield* testbed.move(source.spec.name, "b", parameters);
        return { totalTime: info["total-time"], downtime: info.downtime ?? Number.NaN };
      }),
    ).pipe(
      Effect.catch((error) => {
        failures.push(`lane ${lane}: ${error instanceof Error ? error.message : String(error)}`);
        progress(`godwit failed: ${failures.at(-1)}`);
        return Effect.succeed(null);
      }),
    );
  // The first turn warms everybody up, and is not counted.
  for (let turn = 0; turn <= repetitions; turn++) {
    const qemu = yield* withPair(testbed, `engine${turn}-qemu`, memoryBytes, (source, destination) =>
      migrateByQemu(source.spec.qmp, destination.spec.qmp, { channels: CHANNELS, downtimeLimit: DOWNTIME_LIMIT }),
    );
    const all = { nats: yield* byGodwit("nats", turn), direct: yield* byGodwit("direct", turn), qemu };
    const shown = Object.entries(all).map(([engine, done]) => `${engine} ${done?.totalTime} ms (${done?.downtime} ms)`);
    progress(`total time (downtime): ${shown.join(", ")}${turn === 0 ? " (warming up)" : ""}`);
    if (turn > 0) turns.push(all);
  }
  if (turns.every((turn) => LANES.some((lane) => turn[lane] === null)))
    return yield* Effect.fail(new Error(failures.at(-1)));
  const row = (title: string, of: (migration: QemuMigration) => number): ReadonlyArray<string> => [
    title,
    ...LANES.flatMap((lane) => {
      const pairs = turns.flatMap(({ [lane]: godwit, qemu }) => (godwit === null ? [] : [{ godwit, qemu }]));
      return [
        median(pairs.map(({ godwit }) => of(godwit))).toFixed(0),
        showSpread(spreadOf(pairs.map(({ godwit, qemu }) => of(godwit) / of(qemu))), 2),
      ];
    }),
    median(turns.map(({ qemu }) => of(qemu))).toFixed(0),
  ];
  const result: Result = {
    isComplete: failures.length === 0,
    notes: [
      `The same running guest: a QEMU with ${memoryBytes / MIB} MiB, nearly all of it random, that writes 8 MiB/s in ${COUNTED_BYTES / MIB} MiB; ${CHANNELS} channels, no bandwidth limit, downtime-limit ${DOWNTIME_LIMIT} ms, loopback. godwit goes through nats-server, or by connections of its own; QEMU from process to process over TCP.`,
      "QEMU's figures are its own `query-migrate`, godwit's its own. After each migration the guest must write at the destination.",
      `Medians of ${turns.length} turns of all three; of the ratios to QEMU also the least and the most.`,
      ...failures.map((reason) => `A migration by godwit failed and is not counted: ${reason}`),
    ],
    tables: [
      {
        titles: ["", "godwit, nats", "ratio", "godwit, direct", "ratio", "QEMU multifd"],
        rows: [row("total time, ms", ({ totalTime }) => totalTime), row("downtime, ms", ({ downtime }) => downtime)],
      },
    ],
    figures: { memoryBytes, channels: CHANNELS, downtimeLimit: DOWNTIME_LIMIT, turns, failures },
  };
  return result;
});

export const engine: Part = { name: "engine", title: "godwit beside QEMU's multifd", run };
