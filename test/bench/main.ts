// `npm run bench -- [part...] [--quick] [--profile]`: measures godwit on this machine. Every figure that is compared is measured in one run.
import "../programs.ts";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import * as NodeRuntime from "@effect/platform-node/NodeRuntime";
import * as Effect from "effect/Effect";
import * as References from "effect/References";
import { markdownTable } from "./markdown.ts";
import { failed, type Part, type Result } from "./part.ts";
import { checkpoint } from "./parts/checkpoint.ts";
import { compression } from "./parts/compression.ts";
import { coordinatorKill } from "./parts/coordinator-kill.ts";
import { cpu } from "./parts/cpu.ts";
import { direct } from "./parts/direct.ts";
import { encryption } from "./parts/encryption.ts";
import { engine } from "./parts/engine.ts";
import { lane } from "./parts/lane.ts";
import { memory } from "./parts/memory.ts";
import { postcopy } from "./parts/postcopy.ts";
import { scale } from "./parts/scale.ts";
import { scan } from "./parts/scan.ts";
import { shapedLink } from "./parts/shaped-link.ts";
import { steps } from "./parts/steps.ts";
import { switchover } from "./parts/switchover.ts";
import { vfio } from "./parts/vfio.ts";
import { workerKill } from "./parts/worker-kill.ts";
import { xbzrle } from "./parts/xbzrle.ts";
import { hottest } from "./profile/hottest.ts";

const PARTS: ReadonlyArray<Part> = [
  lane,
  direct,
  engine,
  switchover,
  cpu,
  memory,
  scan,
  workerKill,
  coordinatorKill,
  vfio,
  checkpoint,
  postcopy,
  encryption,
  compression,
  xbzrle,
  shapedLink,
  scale,
  steps,
];
const RESULTS = fileURLToPath(new URL("../../bench-results", import.meta.url));
const GIB = 1024 ** 3;

const PROFILES = join(RESULTS, "profiles");

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: "boolean" }, profile: { type: "boolean" } },
});
const quick = values.quick ?? false;
if (values.profile) {
  rmSync(PROFILES, { recursive: true, force: true });
  process.env["GODWIT_BENCH_PROFILES"] = PROFILES;
  // Functions are told by the source file they stand in.
  delete process.env["GODWIT_PROGRAMS"];
  // Actors inherit it. What it costs makes every figure worse.
  process.env["NODE_OPTIONS"] = `--import ${new URL("./profile/recorder.ts", import.meta.url)}`;
}

const machine = () => ({
  processors: cpus().length,
  processor: cpus()[0]?.model ?? "unknown",
  memoryGiB: Math.round(totalmem() / GIB),
  kernel: release(),
  node: process.version,
  loadBefore: loadavg().map((load) => Number(load.toFixed(2))),
});

const describeMachine = (about: ReturnType<typeof machine>): string => {
  const { processors, processor, memoryGiB, kernel, node, loadBefore } = about;
  const line = `${processors} x ${processor}, ${memoryGiB} GiB, Linux ${kernel}, Node ${node}.`;
  const busy =
    (loadBefore[0] ?? 0) > 1 ? ` Load before: ${loadBefore[0]}: others are at work here, trust ratios only.` : "";
  return line + busy;
};

const show = ({ title }: Part, { tables, notes }: Result): string =>
  [`### ${title}\n`, ...tables.map(markdownTable), `${notes.map((note) => `- ${note}`).join("\n")}\n`].join("\n");

const progress = (line: string): void => void process.stderr.write(`  ${line}\n`);

const main = Effect.gen(function* () {
  const unknown = positionals.filter((name) => !PARTS.some((part) => part.name === name));
  if (unknown.length > 0) {
    const known = PARTS.map(({ name }) => name).join(", ");
    return yield* Effect.fail(new Error(`no part is called ${unknown.join(" or ")}; there are ${known}`));
  }
  const startedAt = new Date();
  const about = machine();
  process.stdout.write(`${describeMachine(about)}\n\n`);
  const parts: Record<string, Result> = {};
  for (const part of PARTS) {
    if (positionals.length > 0 && !positionals.includes(part.name)) continue;
    process.stderr.write(`${part.name}\n`);
    const result = yield* Effect.scoped(part.run({ quick, progress })).pipe(
      // The others are worth their time all the same.
      Effect.catch((error) => Effect.succeed(failed(error))),
    );
    parts[part.name] = result;
    process.stdout.write(`${show(part, result)}\n`);
  }
  if (values.profile) process.stdout.write(`${hottest(PROFILES).map(markdownTable).join("\n")}\n`);
  const report = JSON.stringify({ startedAt, endedAt: new Date(), quick, machine: about, parts }, null, 2);
  mkdirSync(RESULTS, { recursive: true });
  for (const name of [startedAt.toISOString().replaceAll(":", "-"), "latest"])
    writeFileSync(join(RESULTS, `${name}.json`), `${report}\n`);
  if (Object.values(parts).some(({ isComplete }) => !isComplete)) process.exitCode = 1;
});

// The node services in this process log, too; a worker that is killed on purpose is no news.
NodeRuntime.runMain(Effect.provideService(main, References.MinimumLogLevel, "Error") as Effect.Effect<void, unknown>);
