/** A device of the kernel moves from the VFIO agent of one node to that of another, over NATS: real agents, a real worker, a real server. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Fabric, FabricError, NatsFabric } from "@godwit/fabric";
import { openRegistry } from "@godwit/guest";
import {
  isMalformed,
  type JsonCodec,
  json,
  LoadReport,
  PAGE_BYTES,
  PARAMETER_DEFAULTS,
  type SavedStreams,
  SaveReport,
  subjects,
  VfioAnswer,
  VfioCommand,
  VfioQuestion,
} from "@godwit/protocol";
import { type DeviceError, type KernelDevice, openKernelDevice } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import { startNats } from "../../../libs/fabric/src/local-nats.ts";

/** What is in the devices, by the descriptor of the one or the other. */
export interface Cargo {
  readonly p2p: boolean;
  /** Writes it into the source, before the migration. */
  readonly fill: (descriptor: number) => void;
  /** Changes it in the source, which is in PRE_COPY; the agent has that open, so nobody can whose device is not borrowed. */
  readonly touch?: (descriptor: number) => void;
  /** Guest memory that it writes to by DMA, in `touch`: lengths of RAMBlocks, and what the agent says then, as in `VfioAnswer`. */
  readonly memory?: { readonly blockBytes: ReadonlyArray<number>; readonly runs: ReadonlyArray<number> };
  readonly content: (descriptor: number) => unknown;
  /** `content` of the destination afterwards. */
  readonly arrives: unknown;
  /** How long the stream may be: least and most. */
  readonly streamBytes: readonly [number, number];
}

const MIGRATION = "0123456789abcdef";
const GUEST = "vm1";
const DEVICE = "uart0";
/** A command is said again after this, ms. */
const AGAIN_MS = 500;
/** One emulated processor starts three actors at once in a minute, ms. */
const ANSWER_MS = 240_000;
/** A connection gives up after seconds, which such a processor may need for the server's first answer. */
const CONNECT_TIMES = 10;
const ACTORS = [
  ["vfio-agent", "a"],
  ["vfio-agent", "b"],
  ["multifd-worker", "a"],
] as const;

const commands = json(VfioCommand);
const questions = json(VfioQuestion);
const answers = json(VfioAnswer);
const entry = (service: string): string =>
  fileURLToPath(import.meta.resolve(`../../../services/${service}/src/main.ts`));

const start = (service: string, node: string, nats: string, directory: string): ChildProcess =>
  spawn(process.execPath, [entry(service)], {
    stdio: ["ignore", "ignore", "inherit"],
    env: {
      ...process.env,
      GODWIT_NATS: nats,
      GODWIT_NODE: node,
      GODWIT_RUNTIME_DIR: join(directory, node),
      GODWIT_GUEST_DIR: join(directory, node),
    },
  });

const isUnreached = (error: unknown): boolean => error instanceof FabricError && error.code === "nats-unreachable";

/** Says a command until the agent reports what it shall come to. */
const lead = Effect.fnUntraced(function* <R extends { readonly epoch: number; readonly failure?: unknown }>(
  node: string,
  command: VfioCommand,
  reports: { readonly subject: string; readonly codec: JsonCodec<R> },
  reached: (report: R) => boolean,
) {
  const fabric = yield* Fabric;
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const heard = yield* fabric.subscribe(reports.subject, { capacity: 64 });
      const say = fabric.request(subjects.vfio(node), commands.encode(command), { timeoutMs: ANSWER_MS });
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.ignore(say), Effect.sleep(AGAIN_MS))));
      while (true) {
        for (const { data } of yield* heard.takeAll) {
          const report = reports.codec.decode(data);
          if (isMalformed(report)) continue;
          assert.equal((report as R).failure, undefined, JSON.stringify(report));
          if (reached(report as R)) return report as R;
        }
      }
    }),
  ).pipe(Effect.timeout(ANSWER_MS));
});

const ROUTE = { migration: MIGRATION, source: "a", destination: "b" };
const SAVE = { subject: subjects.saveReport(ROUTE), codec: json(SaveReport) };
const LOAD = { subject: subjects.loadReport(ROUTE), codec: json(LoadReport) };
/** A state that an emulated processor takes long to reach is no failure here. */
const parameters = { ...PARAMETER_DEFAULTS, "downtime-limit": 20_000 };
const header = { migration: MIGRATION, epoch: 1, guest: GUEST, parameters } as never as {
  readonly migration: VfioCommand["migration"];
  readonly epoch: VfioCommand["epoch"];
  readonly guest: string;
  readonly parameters: typeof PARAMETER_DEFAULTS;
};
const save = (stage: Extract<VfioCommand, { _tag: "Save" }>["stage"], { memory }: Cargo): VfioCommand => ({
  _tag: "Save",
  ...header,
  peer: ROUTE.destination,
  stage,
  "parameters-revision": 0,
  "block-bytes": memory?.blockBytes ?? [],
});
const load = (
  stage: Extract<VfioCommand, { _tag: "Load" }>["stage"],
  streams: ReadonlyArray<SavedStreams>,
  { p2p, memory }: Cargo,
): VfioCommand => ({
  _tag: "Load",
  ...header,
  peer: ROUTE.source,
  stage,
  devices: [{ device: DEVICE, provider: "kernel", p2p, "pre-copy": true, "dirty-logging": memory !== undefined }],
  streams,
  "memory-loaded": true,
});

/** What the devices of the source wrote by DMA, as the RAM sender asks for it at a sync. */
const dirtyPages = Effect.gen(function* () {
  const fabric = yield* Fabric;
  const question = questions.encode({
    _tag: "DirtyPages",
    migration: header.migration,
    epoch: header.epoch,
    sync: 1,
    from: 0,
  });
  const data = yield* fabric.request(subjects.vfioQuestion("a"), question, { timeoutMs: ANSWER_MS });
  const answer = answers.decode(data);
  assert.ok(!isMalformed(answer) && answer._tag === "DirtyPages");
  return answer.runs;
});

/** As RAM sender and loader lead their agents. */
const move = Effect.fnUntraced(function* (cargo: Cargo, touch: Effect.Effect<void, DeviceError>) {
  yield* lead("b", load("ready", [], cargo), LOAD, ({ stage }) => stage === "ready");
  yield* lead(
    "a",
    save("precopy", cargo),
    SAVE,
    ({ stage, devices }) => stage === "precopy" && devices[0]?.state === "PRE_COPY",
  );
  yield* touch;
  if (cargo.memory !== undefined) assert.deepEqual(yield* dirtyPages, cargo.memory.runs);
  const { streams } = yield* lead("a", save("stopped", cargo), SAVE, (report) => report.streams !== undefined);
  yield* lead("b", load("loaded", streams!, cargo), LOAD, ({ stage }) => stage === "loaded");
  const { devices } = yield* lead("b", load("running", streams!, cargo), LOAD, ({ stage }) => stage === "running");
  yield* lead("a", save("discarded", cargo), SAVE, ({ stage }) => stage === "discarded");
  return { stream: streams![0]!, arrived: devices[0]! };
});

const onDevice = <A>(device: string, use: (device: KernelDevice) => Effect.Effect<A, DeviceError>) =>
  Effect.scoped(Effect.flatMap(openKernelDevice({ name: DEVICE, device }), use));

/** A child that lasts as long as the scope. */
const started = (service: string, node: string, nats: string, directory: string) =>
  Effect.acquireRelease(
    Effect.sync(() => start(service, node, nats, directory)),
    (child) => Effect.sync(() => child.kill("SIGKILL")),
  );

/** Devices by what the provider is told of them: of the source's node, and of the destination's. */
export const migrate = async (here: string, there: string, cargo: Cargo): Promise<void> => {
  const directory = mkdtempSync(join(tmpdir(), "kernel-vfio-"));
  const contentOf = (device: string) =>
    onDevice(device, ({ descriptor }) => Effect.sync(() => cargo.content(descriptor)));
  await Effect.runPromise(onDevice(here, ({ descriptor }) => Effect.sync(() => cargo.fill(descriptor))));
  assert.notDeepEqual(await Effect.runPromise(contentOf(there)), cargo.arrives);
  for (const [node, device] of [
    ["a", here],
    ["b", there],
  ] as const) {
    const devices = [{ name: DEVICE, provider: "kernel", device }] as const;
    const registered = { driver: "builtin", name: GUEST, socket: "/none", pid: process.pid, devices } as const;
    openRegistry(join(directory, node)).put(registered);
  }
  const { touch } = cargo;
  const touched =
    touch === undefined ? Effect.void : onDevice(here, ({ descriptor }) => Effect.sync(() => touch(descriptor)));
  const nats = await startNats({ storeDir: join(directory, "nats") });
  try {
    // Connected before there is anybody to share the processor with.
    const moved = Effect.gen(function* () {
      for (const [service, node] of ACTORS) yield* started(service, node, nats.url, directory);
      return yield* move(cargo, touched);
    }).pipe(Effect.scoped, Effect.provide(NatsFabric.layer({ servers: nats.url, name: "kernel-vfio test" })));
    const { stream, arrived } = await Effect.runPromise(
      Effect.retry(moved, { times: CONNECT_TIMES, while: isUnreached }),
    );
    const [least, most] = cargo.streamBytes;
    assert.equal(arrived.state, "RUNNING");
    assert.ok(stream.bytes >= least && stream.bytes <= most, `${stream.bytes} bytes, not ${least} to ${most}`);
    assert.ok(arrived.transferred >= least);
  } finally {
    await nats.stop();
  }
  // The agents are gone, and the devices still are what they were led to: somebody has them open, or they keep their state when closed.
  assert.equal(await Effect.runPromise(onDevice(here, ({ state }) => state)), "STOP");
  assert.equal(await Effect.runPromise(onDevice(there, ({ state }) => state)), "RUNNING");
  assert.deepEqual(await Effect.runPromise(contentOf(there)), cargo.arrives);
  if (cargo.memory !== undefined) await Effect.runPromise(onDevice(here, startsToLog));
};

/** A device that logs already refuses it; one that was moved away must not be left logging. */
const startsToLog = ({ dmaLogging }: KernelDevice) =>
  Effect.andThen(dmaLogging!.start(PAGE_BYTES, [{ iova: 0, length: PAGE_BYTES }]), dmaLogging!.stop);
