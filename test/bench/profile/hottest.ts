/** Where the time of recorded processes went, function by function. */
import { readdirSync, readFileSync } from "node:fs";
import type { Profiler } from "node:inspector";
import { basename, join } from "node:path";
import type { Table } from "../markdown.ts";

const SHOWN = 10;
/** Time in which nothing ran, or the recording itself. */
const IDLE = new Set(["(idle)", "post, node:inspector"]);

const nameOf = ({ functionName, url }: Profiler.ProfileNode["callFrame"]): string =>
  `${functionName === "" ? "(native or anonymous)" : functionName}${url === "" ? "" : `, ${basename(url)}`}`;

/** Milliseconds that each function itself took, in all profiles of a role together. */
const selfTimes = (profiles: ReadonlyArray<Profiler.Profile>): Map<string, number> => {
  const times = new Map<string, number>();
  for (const { nodes, samples = [], timeDeltas = [] } of profiles) {
    const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
    samples.forEach((id, index) => {
      const name = names.get(id) ?? "";
      if (!IDLE.has(name)) times.set(name, (times.get(name) ?? 0) + (timeDeltas[index] ?? 0) / 1000);
    });
  }
  return times;
};

/** The ten hottest functions of each role, by their own time; it counts waiting for a processor, too. */
export const hottest = (folder: string): ReadonlyArray<Table> =>
  ["multifd-worker", "loader"].map((role) => {
    const files = readdirSync(folder).filter((name) => name.startsWith(`${role}-`));
    const profiles = files.map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")) as Profiler.Profile);
    const times = selfTimes(profiles);
    const all = [...times.values()].reduce((sum, each) => sum + each, 0);
    const first = [...times].sort(([, a], [, b]) => b - a).slice(0, SHOWN);
    return {
      titles: [role, "of its time"],
      rows: first.map(([name, ms]) => [name, `${((100 * ms) / all).toFixed(1)}%`]),
    };
  });
