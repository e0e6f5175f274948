/** What must be true once a migration has ended, seen from outside: at the guests' processes, their memory and the record. */
import { awaitVerified, type BuiltinSpec, readStats } from "@godwit/guest";
import type { MigrationInfo } from "@godwit/protocol";
import { expect } from "vitest";
import type { Journey } from "./journey.ts";
import { eventually, runStateOf, type World } from "./world.ts";

/** The only process of the guest: at `node`, running. */
const theOnly = async (world: World, guest: string, node: string): Promise<BuiltinSpec> => {
  await eventually(`guest ${guest} has one process, at node ${node}`, () => {
    const processes = world.processesOf(guest);
    return processes.length === 1 && processes[0]?.node === node;
  });
  const [only] = world.processesOf(guest);
  if (only === undefined) throw new Error(`guest ${guest} has just ended`);
  await eventually(
    `guest ${guest} runs at node ${node}`,
    async () => (await runStateOf(world, only.spec)) === "running",
  );
  return only.spec;
};

/** The vCPUs do their work, not only say so. */
export const expectProgress = async (world: World, spec: BuiltinSpec): Promise<void> => {
  const { pagesWritten } = await world.run(readStats(spec));
  await eventually(
    `guest ${spec.name} writes memory`,
    async () => (await world.run(readStats(spec))).pagesWritten > pagesWritten,
  );
};

const expectRecord = async (
  world: World,
  guest: string,
  state: "source" | "destination",
  node: string,
): Promise<void> => {
  await eventually(`the record of guest ${guest} is closed`, async () => (await world.record(guest))?.open === false);
  expect(await world.record(guest)).toMatchObject({ state, node, open: false });
};

/** Where the downtime went adds up to it; of a switchover whose RAM sender has died there is no sum. */
const expectWaterfall = ({ waterfall, downtime }: MigrationInfo): void => {
  if (waterfall?.total === undefined) return;
  const inSum = waterfall.parts.filter(({ beside }) => beside !== true);
  const sum = inSum.reduce((all, { length }) => all + length, 0);
  expect(sum + waterfall.rest!, JSON.stringify(waterfall)).toBe(waterfall.total);
  expect(Math.abs(downtime! - waterfall.total / 1000)).toBeLessThanOrEqual(0.5);
  for (const { begin, length } of waterfall.parts) {
    expect(begin, JSON.stringify(waterfall)).toBeGreaterThanOrEqual(0);
    expect(length, JSON.stringify(waterfall)).toBeGreaterThanOrEqual(0);
  }
};

/** The migration completed: one process is left, it runs at `node`, every page of it is right, and the record says so. */
export const expectMoved = async (world: World, journey: Journey, node: string): Promise<MigrationInfo> => {
  const end = await journey.end;
  expect(end, world.log().slice(-4000)).toMatchObject({ status: "completed", destination: node });
  expect(end.error).toBeUndefined();
  expectWaterfall(end);
  const spec = await theOnly(world, end.guest, node);
  const verification = await world.run(awaitVerified(spec));
  expect(verification).toMatchObject({ done: true, badCount: 0, pagesChecked: verification.pagesTotal });
  await expectProgress(world, spec);
  await expectRecord(world, end.guest, "destination", node);
  return end;
};

/** Wherever the migration ended: one process is left, it runs, and its memory is right. Returns its node. */
export const expectRunsOnce = async (world: World, guest: string): Promise<string> => {
  await eventually(`guest ${guest} has one process`, () => world.processesOf(guest).length === 1);
  const [only] = world.processesOf(guest);
  if (only === undefined) throw new Error(`guest ${guest} has just ended`);
  const spec = await theOnly(world, guest, only.node);
  // Only memory that came by a migration has a sweep of its own; at the source nothing has touched it.
  if ((await world.record(guest))?.state === "destination") {
    expect(await world.run(awaitVerified(spec))).toMatchObject({ done: true, badCount: 0 });
  }
  await expectProgress(world, spec);
  return only.node;
};

/** The guest stayed: one process is left, it runs at `node`, and the record, if there is one, is the source's. */
export const expectStayed = async (world: World, guest: string, node: string): Promise<void> => {
  const spec = await theOnly(world, guest, node);
  await expectProgress(world, spec);
  if ((await world.record(guest))?.migration !== undefined) {
    await eventually(`the record of guest ${guest} is closed`, async () => (await world.record(guest))?.open === false);
    expect(await world.record(guest)).toMatchObject({ node, open: false });
  }
};
