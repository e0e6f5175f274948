/** One attempt with the devices of one guest, from a seed: faults first, then quiet, then everything must have come to its end. */
import { DestinationHost } from "./destination-host.ts";
import { type Change, settingOf } from "./setting.ts";
import { Sides } from "./sides.ts";
import { SourceHost } from "./source-host.ts";
import { must, Violation } from "./violation.ts";
import { World } from "./world.ts";

/** Within so much virtual time every attempt ends, ms. */
const END_MS = 60_000;
/** What comes late, comes until then, ms after the end. */
const LINGER_MS = 3000;

export interface Outcome {
  readonly ended: "completed" | "failed";
  readonly failure: string | null;
  readonly phases: ReadonlySet<string>;
  readonly world: World;
  readonly source: SourceHost;
  readonly destination: DestinationHost;
}

const nemesis = (world: World, source: SourceHost, destination: DestinationHost): void => {
  const { dice, setting, timeline } = world;
  for (const host of [source, destination])
    if (dice.chance(setting.faults.restart))
      timeline.after(dice.between(0, 3000), () => {
        world.isFaulty = true;
        host.restart();
      });
  if (!dice.chance(setting.faults.worker)) return;
  for (let at = dice.between(0, 500); at < 6000; at += dice.between(50, 2000)) {
    const worker = `w${dice.between(0, 2)}`;
    timeline.after(at, () => {
      const isThere = world.workers.delete(worker);
      if (!isThere) world.workers.add(worker);
      // Its end is noticed late.
      const event = { _tag: isThere ? "WorkerDown" : "WorkerUp", worker } as const;
      timeline.after(dice.between(0, 300), () => source.dispatch(event));
    });
  }
  timeline.after(6500, () => {
    for (const worker of ["w0", "w1", "w2"]) {
      world.workers.add(worker);
      source.dispatch({ _tag: "WorkerUp", worker });
    }
  });
};

export const run = (seed: number, change: Change = {}): Outcome => {
  const world = new World(settingOf(seed, change));
  const source = new SourceHost(world, "a");
  const destination = new DestinationHost(world, "b");
  try {
    const sides = new Sides(world, source, destination);
    nemesis(world, source, destination);
    const isOver = world.timeline.run(END_MS, () => sides.isOver);
    must(
      isOver,
      `it does not end: ${sides.phase} ${source.saving?.phase}, ${sides.loading} ${destination.loading?.phase}`,
    );
    const { phase } = sides;
    world.timeline.run(world.now + LINGER_MS, () => false);
    const failure = source.saving?.failure ?? destination.loading?.failure ?? null;
    return {
      ended: phase === "completed" ? "completed" : "failed",
      failure: failure?.code ?? null,
      phases: new Set([...source.phases, ...destination.phases]),
      world,
      source,
      destination,
    };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const what = error instanceof Violation ? error.message : (error.stack ?? error.message);
    throw new Violation(`seed ${seed} at ${world.now} ms: ${what}`);
  }
};
