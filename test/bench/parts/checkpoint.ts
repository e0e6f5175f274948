/** Saves and restores beside QEMU's own, and beside a plain copy of the same bytes. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, fsyncSync, mkdirSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { queryRestore, querySave, restore, save } from "@godwit/cli/client";
import { Fabric } from "@godwit/fabric";
import { awaitVerified, launchTestQemu, openRegistry, qemuIsInstalled, startBuiltin } from "@godwit/guest";
import { type CheckpointInfo, isCheckpointOver } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import { claimFreeMemory } from "../free-memory.ts";
import { fillRandomly } from "../memory-images.ts";
import { type BenchOptions, type Part, type Result, skipped } from "../part.ts";
import { goOn, restoreByQemu, saveByQemu } from "../qemu-multifd.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { openTestbed, type Testbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = 2;
/** The boot guest counts below this address and leaves everything above alone, bytes. */
const COUNTED_BYTES = 16 * MIB;
/** At the end of RAM lie tables of the firmware, bytes. */
const FIRMWARE_BYTES = 2 * MIB;
/** Between two questions how it stands, ms: what is added to a figure at most. */
const ASK_MS = 2;
const run = promisify(execFile);

interface Sample {
  readonly qemuSave: number;
  readonly godwitSave: number;
  readonly copyOut: number;
  readonly qemuRestore: number;
  readonly godwitRestore: number;
  readonly builtinSave: number;
  readonly builtinRestore: number;
  /** Of a lazy restore: until the guest ran, and until all its pages were there. */
  readonly lazyFirst: number;
  readonly lazyRestore: number;
  readonly copyIn: number;
}

/** File systems: on a disk, whose own speed is most of it and changes, and on a tmpfs, where there is only what godwit and QEMU do. */
const PLACES = { disk: tmpdir(), tmpfs: "/dev/shm" } as const;
type Place = keyof typeof PLACES;

const measureIn = (place: Place, { quick, progress }: BenchOptions) =>
  Effect.scoped(
    Effect.gen(function* () {
      const testbed = yield* openTestbed({ workers: CHANNELS, filesIn: PLACES[place] });
      mkdirSync(testbed.cluster.settingsOf("a").checkpointDirectory, { recursive: true });
      const samples: Sample[] = [];
      // The first one warms everybody up, and is not counted.
      for (let turn = 0; turn <= repetitionsOf(quick); turn++) {
        const sample = yield* once(testbed, `checkpoint${turn}`, memoryBytesOf(quick));
        progress(
          `${place}, save: godwit ${sample.godwitSave.toFixed(0)}, QEMU ${sample.qemuSave.toFixed(0)}, builtin ${sample.builtinSave.toFixed(0)}, copy ${sample.copyOut.toFixed(0)} ms; restore: godwit ${sample.godwitRestore.toFixed(0)}, QEMU ${sample.qemuRestore.toFixed(0)}, builtin ${sample.builtinRestore.toFixed(0)}, copy ${sample.copyIn.toFixed(0)} ms${turn === 0 ? " (warming up)" : ""}`,
        );
        if (turn > 0) samples.push(sample);
      }
      return samples;
    }),
  );
const memoryBytesOf = (quick: boolean): number => (quick ? 128 : 1024) * MIB;
const repetitionsOf = (quick: boolean): number => (quick ? 1 : 3);

type Of = (sample: Sample) => number;
/** What is compared: godwit's time, QEMU's, and the copy's. */
const COMPARED: ReadonlyArray<readonly [title: string, godwit: Of, qemu: Of, copy: Of]> = [
  ["save, QEMU guest", (s) => s.godwitSave, (s) => s.qemuSave, (s) => s.copyOut],
  ["save, builtin guest", (s) => s.builtinSave, (s) => s.qemuSave, (s) => s.copyOut],
  ["restore, QEMU guest", (s) => s.godwitRestore, (s) => s.qemuRestore, (s) => s.copyIn],
  ["restore, builtin guest", (s) => s.builtinRestore, (s) => s.qemuRestore, (s) => s.copyIn],
];

const measure = Effect.fnUntraced(function* (options: BenchOptions) {
  if (!qemuIsInstalled()) return skipped("there is no qemu-system-x86_64 in PATH");
  const { quick } = options;
  const all: Record<Place, ReadonlyArray<Sample>> = {
    disk: yield* measureIn("disk", options),
    tmpfs: yield* measureIn("tmpfs", options),
  };
  const places = ["disk", "tmpfs"] as const;
  const result: Result = {
    isComplete: true,
    notes: [
      `A guest of ${memoryBytesOf(quick) / MIB} MiB, nearly all of it random, stopped; ${CHANNELS} channels, no bandwidth limit; all files of a row on one file system, disk or tmpfs. Rates are QEMU's or the copy's time over godwit's: above 1 godwit is faster.`,
      "Saves end on disk: godwit syncs, and QEMU, which does not, is given a sync of its file in its time. The copy is `dd bs=1M conv=fsync` of the same bytes. Restores read from the page cache; the copy is `dd bs=1M` into a file in memory.",
      "Of godwit's guests the multifd workers read the pages, and QEMU takes the devices; of a QEMU's own restore QEMU reads all. A builtin guest is beside QEMU's restore of its own guest of that size. After each restore the guest must write, and a builtin one check every page.",
      "Before each row the machine is made to hold as much free memory as the row will write: in a virtual machine fresh memory costs several times as much as memory that was used just before.",
      `Medians of ${repetitionsOf(quick)} turns; of the ratios also the least and the most.`,
    ],
    tables: [
      {
        titles: ["", "files on", "godwit, ms", "QEMU, ms", "ratio to QEMU", "dd, ms", "ratio to dd"],
        rows: places.flatMap((place) =>
          COMPARED.map(([title, godwit, qemu, copyOf]) => {
            const samples = all[place];
            const over = (beside: Of) => showSpread(spreadOf(samples.map((s) => beside(s) / godwit(s))), 2);
            const ms = (of: Of) => median(samples.map(of)).toFixed(0);
            return [title, place, ms(godwit), ms(qemu), over(qemu), ms(copyOf), over(copyOf)];
          }),
        ),
      },
      {
        titles: ["builtin guest", "until it runs, ms", "until all is there, ms", "until it runs, of a full restore"],
        rows: [
          ["restored whole", ...["", ""].map(() => median(all.disk.map((s) => s.builtinRestore)).toFixed(0)), "1.00"],
          [
            "restored lazily",
            median(all.disk.map((s) => s.lazyFirst)).toFixed(0),
            median(all.disk.map((s) => s.lazyRestore)).toFixed(0),
            showSpread(spreadOf(all.disk.map((s) => s.lazyFirst / s.builtinRestore)), 2),
          ],
        ],
      },
    ],
    figures: { memoryBytes: memoryBytesOf(quick), channels: CHANNELS, samples: all },
  };
  return result;
});

const parameters = { ...UNLIMITED, "multifd-channels": CHANNELS };
const finished = (begun: CheckpointInfo, ask: Effect.Effect<CheckpointInfo, unknown, Fabric>) =>
  Effect.map(endOf(begun, ask), (info) => info["total-time"]);
const endOf = (begun: CheckpointInfo, ask: Effect.Effect<CheckpointInfo, unknown, Fabric>) =>
  Effect.gen(function* () {
    const info = isCheckpointOver(begun)
      ? begun
      : yield* ask.pipe(Effect.repeat({ until: isCheckpointOver, schedule: Schedule.spaced(ASK_MS) }));
    if (info.status !== "completed")
      return yield* Effect.fail(new Error(`${info.what} ${info.status}: ${info.error?.reason}`));
    return info;
  });
const saveByGodwit = (guest: string, uri: string) =>
  Effect.gen(function* () {
    const id = randomBytes(8).toString("hex") as CheckpointInfo["id"];
    const begun = yield* save("a", { id, guest, uri, parameters, capabilities: {}, stop: true, checksums: false });
    return yield* finished(begun, querySave("a", { id }));
  });
const restoreByGodwit = (guest: string, uri: string) =>
  Effect.map(restoredInfo(guest, uri, false), (info) => info["total-time"]);
const restoredInfo = (guest: string, uri: string, lazy: boolean) =>
  Effect.gen(function* () {
    const id = randomBytes(8).toString("hex") as CheckpointInfo["id"];
    const begun = yield* restore("b", {
      id,
      guest,
      uri,
      parameters,
      capabilities: {},
      stop: false,
      lazy,
      takeOver: false,
    });
    return yield* endOf(begun, queryRestore("b", { id }));
  });

const timed = <A, E, R>(work: Effect.Effect<A, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const startedAt = performance.now();
    return Effect.map(work, () => performance.now() - startedAt);
  });
const copy = (from: string, to: string, ...more: ReadonlyArray<string>) =>
  timed(Effect.tryPromise(() => run("dd", [`if=${from}`, `of=${to}`, "bs=1M", ...more])));

const once = (testbed: Testbed, name: string, memoryBytes: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const folder = testbed.cluster.settingsOf("a").checkpointDirectory;
      const options = {
        directory: testbed.directory,
        ramDirectory: testbed.memoryDirectory,
        memoryBytes,
        program: { endAddress: COUNTED_BYTES },
      };
      const files = { qemu: join(folder, `${name}-qemu`), copy: join(folder, `${name}-copy`) };
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const file of [...Object.values(files), join(folder, name), join(folder, `${name}-builtin`)])
            rmSync(file, { force: true });
        }),
      );
      const saves = yield* Effect.scoped(
        Effect.gen(function* () {
          const source = yield* launchTestQemu({ ...options, name, role: "source" });
          yield* source.awaitSerial((text) => text.includes("B"));
          fillRandomly(source.ramPath, COUNTED_BYTES, memoryBytes - FIRMWARE_BYTES);
          testbed.register("a", source.spec);
          claimFreeMemory(testbed.memoryDirectory, memoryBytes);
          const qemuSave = yield* timed(
            Effect.tap(saveByQemu(source.spec.qmp, files.qemu, CHANNELS), () =>
              Effect.sync(() => syncFile(files.qemu)),
            ),
          );
          claimFreeMemory(testbed.memoryDirectory, memoryBytes);
          const copyOut = yield* copy(source.ramPath, files.copy, "conv=fsync");
          rmSync(files.copy);
          yield* goOn(source.spec.qmp);
          claimFreeMemory(testbed.memoryDirectory, memoryBytes);
          const godwitSave = yield* saveByGodwit(name, `file:${name}`);
          testbed.forget("a", name);
          return { qemuSave, copyOut, godwitSave };
        }),
      );
      const qemuRestore = yield* restored(testbed, { ...options, name: `${name}-own` }, (qmp) =>
        restoreByQemu(qmp, files.qemu, CHANNELS),
      );
      const godwitRestore = yield* restored(testbed, { ...options, name }, () => restoreByGodwit(name, `file:${name}`));
      const copyTo = join(testbed.memoryDirectory, `${name}-copy`);
      claimFreeMemory(testbed.memoryDirectory, memoryBytes);
      const copyIn = yield* copy(files.qemu, copyTo);
      rmSync(copyTo);
      return {
        ...saves,
        qemuRestore,
        godwitRestore,
        copyIn,
        ...(yield* builtin(testbed, `${name}-builtin`, memoryBytes)),
      };
    }),
  ).pipe(Effect.provideService(Fabric, testbed.fabric));

/** A QEMU that waits, restored by `work`, which must live then. */
const restored = <E>(
  testbed: Testbed,
  options: Omit<Parameters<typeof launchTestQemu>[0], "role">,
  work: (qmp: string) => Effect.Effect<number, E, Fabric>,
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const destination = yield* launchTestQemu({ ...options, role: "destination" });
      testbed.register("b", destination.spec);
      claimFreeMemory(testbed.memoryDirectory, options.memoryBytes);
      const ms = yield* work(destination.spec.qmp);
      yield* destination.awaitSerial((text) => text.length > 0);
      testbed.forget("b", options.name);
      return ms;
    }),
  );

const builtin = (testbed: Testbed, name: string, memoryBytes: number) =>
  Effect.gen(function* () {
    const spec = yield* startBuiltin({
      name,
      memoryBytes,
      directory: testbed.memoryDirectory,
      dirtyRateBytesPerSecond: 0,
      mix: { zero: 0, compressible: 0, random: 100 },
    });
    testbed.register("a", spec);
    claimFreeMemory(testbed.memoryDirectory, memoryBytes);
    const builtinSave = yield* saveByGodwit(name, `file:${name}`);
    process.kill(spec.pid, "SIGKILL");
    testbed.forget("a", name);
    const full = yield* builtinRestored(testbed, name, memoryBytes, false);
    const lazy = yield* builtinRestored(testbed, name, memoryBytes, true);
    return {
      builtinSave,
      builtinRestore: full["total-time"],
      lazyFirst: lazy["first-instruction"] ?? Number.NaN,
      lazyRestore: lazy["total-time"],
    };
  });

/** One restore of a builtin guest, which must find every page right, and is ended then. */
const builtinRestored = (testbed: Testbed, name: string, memoryBytes: number, lazy: boolean) =>
  Effect.gen(function* () {
    claimFreeMemory(testbed.memoryDirectory, memoryBytes);
    const info = yield* restoredInfo(name, `file:${name}`, lazy);
    const arrived = openRegistry(testbed.cluster.settingsOf("b").runtimeDirectory).find(name);
    if (arrived?.driver !== "builtin") return yield* Effect.fail(new Error(`guest ${name} is not at node b`));
    const { badCount } = yield* awaitVerified(arrived);
    if (badCount > 0) return yield* Effect.fail(new Error(`${badCount} pages of guest ${name} are bad`));
    process.kill(arrived.pid, "SIGKILL");
    testbed.forget("b", name);
    return info;
  });

const syncFile = (path: string): void => {
  const fd = openSync(path, "r+");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
};

export const checkpoint: Part = {
  name: "checkpoint",
  title: "Checkpoints beside QEMU's own, and beside a copy",
  run: measure,
};
