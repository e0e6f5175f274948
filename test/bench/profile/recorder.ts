/**
 * Preloaded into every process of a bench with `--profile`: multifd workers and loaders record where their time goes, and write it when they end. What a
 * start costs is left out.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector";
import { join } from "node:path";

/** A start and a warm-up take less, ms. */
const BEGIN_AFTER_MS = 5000;
const SAMPLE_US = 500;

const role = /services\/(multifd-worker|loader)\//.exec(process.argv[1] ?? "")?.[1];
const folder = process.env["GODWIT_BENCH_PROFILES"];
if (role !== undefined && folder !== undefined) {
  const session = new Session();
  session.connect();
  session.post("Profiler.enable");
  session.post("Profiler.setSamplingInterval", { interval: SAMPLE_US });
  setTimeout(() => session.post("Profiler.start"), BEGIN_AFTER_MS).unref();
  process.on("exit", () => {
    session.post("Profiler.stop", (error, result) => {
      if (error !== null) return;
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, `${role}-${process.pid}.cpuprofile`), JSON.stringify(result.profile));
    });
  });
}
