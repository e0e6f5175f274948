import * as Bitmap from "@godwit/memory/bitmap";
import { PAGE_BYTES, PARAMETER_DEFAULTS } from "@godwit/protocol";
import fc from "fast-check";
import { assert, describe, it } from "vitest";
import { beginSave, infoOfSave, makeSave, stepSave } from "./save.ts";
import type { Save, SaveEffect, SaveEvent, SaveStep } from "./save-state.ts";

const PAGES = 600;
const NOW = 1_700_000_000_000;

/**
 * A guest of small numbers, its file, and a worker: a page is a number that grows with each write. Workers take the gate seriously, as
 * the kernel makes them, and answer late, twice or never.
 */
class World {
  readonly save: Save;
  readonly memory = Uint32Array.from({ length: PAGES }, (_, page) => page % 3);
  readonly file = new Uint32Array(PAGES);
  readonly dirty = new Set<number>(Array.from({ length: PAGES }, (_, page) => page));
  now = NOW;
  running: boolean;
  gate = 0;
  inside: Array<{
    readonly round: number;
    readonly item: number;
    readonly runs: Uint32Array;
    read: Uint32Array | null;
  }> = [];
  steps: Array<{ readonly step: SaveStep; readonly round: number }> = [];
  answers: SaveEvent[] = [];
  finished = false;
  abandoned = false;
  stopped: Uint32Array | null = null;

  constructor(running: boolean, stop: boolean) {
    this.running = running;
    this.save = makeSave({
      id: "0123456789abcdef",
      guest: "vm1",
      node: "a",
      uri: "file:vm1",
      parameters: { ...PARAMETER_DEFAULTS, "downtime-limit": 50, "max-bandwidth": 0 },
      stop,
      checksums: false,
      now: NOW,
    });
    for (const effect of beginSave) this.perform(effect);
    this.feed({ _tag: "WorkerUp", worker: "0" });
    this.feed({ _tag: "WorkerUp", worker: "1" });
  }

  feed(event: SaveEvent): void {
    for (const effect of stepSave(this.save, event, this.now)) this.perform(effect);
  }

  perform(effect: SaveEffect): void {
    if (effect._tag === "Local") this.steps.push(effect);
    if (effect._tag === "Abandon") {
      this.abandoned = true;
      this.gate = 0;
    }
    if (effect._tag === "Dispatch" && effect.item.work.kind === "pages")
      this.inside.push({
        round: this.save.ledger.round,
        item: effect.item.item,
        runs: effect.item.work.runs,
        read: null,
      });
  }

  write(page: number): void {
    if (!this.running) return;
    this.memory[page]!++;
    this.dirty.add(page);
  }

  /** A worker reads, and in another moment writes and answers; in between it is within the gate. */
  work(index: number, loses: boolean): void {
    const copy = this.inside[index % Math.max(1, this.inside.length)];
    if (copy === undefined) return;
    if (copy.read === null) {
      if (copy.round !== this.gate) {
        this.inside.splice(this.inside.indexOf(copy), 1);
        return;
      }
      copy.read = this.memory.slice();
      return;
    }
    this.inside.splice(this.inside.indexOf(copy), 1);
    let pages = 0;
    for (let r = 1; r < copy.runs.length; r += 2) pages += copy.runs[r]!;
    const zeroMap = new Uint8Array((pages + 7) >>> 3);
    let at = 0;
    for (let r = 0; r < copy.runs.length; r += 2) {
      for (let page = copy.runs[r]!; page < copy.runs[r]! + copy.runs[r + 1]!; page++, at++) {
        if (!this.abandoned) this.file[page] = copy.read[page]!;
        if (copy.read[page] === 0) zeroMap[at >>> 3]! |= 1 << (at & 7);
      }
    }
    if (!loses) this.feed({ _tag: "Stored", round: copy.round, item: copy.item, zeroMap, sums: new Uint32Array(0) });
  }

  /** Carries out the next step of this host, if there is one. */
  local(fails: boolean): void {
    const next = this.steps.shift();
    if (next === undefined) return;
    if (fails && next.step !== "resume") {
      return this.feed({
        _tag: "LocalFailed",
        step: next.step,
        failure: { code: "guest-failed", actor: "ram-sender", step: next.step, reason: "for the test" },
      });
    }
    const { round } = next;
    switch (next.step) {
      case "describe":
        return this.feed({ _tag: "Described", blocks: [{ name: "ram0", pages: PAGES }], running: this.running });
      case "open-tracker":
        return this.feed({ _tag: "TrackerOpened" });
      case "open-gate":
        this.gate = round;
        return this.feed({ _tag: "GateOpened", round });
      case "sync": {
        const found = [...this.dirty].sort((one, other) => one - other);
        this.dirty.clear();
        this.feed({ _tag: "Found", round, block: 0, runs: found.flatMap((page) => [page, 1]) });
        return this.feed({ _tag: "Synced", round });
      }
      case "shut-gate":
        // Whoever reads or writes is within: the kernel does not give the lock before he has left.
        if (this.inside.some((copy) => copy.read !== null)) {
          this.steps.unshift(next);
          return;
        }
        this.gate = 0;
        return this.feed({ _tag: "GateShut", round });
      case "pause":
        this.running = false;
        this.stopped = this.memory.slice();
        return this.feed({ _tag: "Paused" });
      case "save-device-state":
        this.stopped ??= this.memory.slice();
        return this.feed({ _tag: "DeviceStateSaved" });
      case "resume":
        this.running = true;
        return this.feed({ _tag: "Resumed" });
      case "finish":
        this.finished = true;
        return this.feed({ _tag: "Finished", fileBytes: 1 });
    }
  }
}

const chaos = fc.array(fc.tuple(fc.nat({ max: 6 }), fc.nat({ max: PAGES - 1 })), { minLength: 300, maxLength: 1500 });

const storm = (world: World, steps: ReadonlyArray<readonly [number, number]>, failing: boolean): void => {
  for (const [what, number] of steps) {
    world.now += 1 + (number % 40);
    switch (what) {
      case 0:
        world.write(number);
        break;
      case 1:
      case 2:
        world.work(number, number % 11 === 0);
        break;
      case 3:
        world.local(failing && number === 7);
        break;
      case 4:
        world.feed({ _tag: "Tick" });
        break;
      case 5:
        if (number % 20 === 0) {
          world.feed({ _tag: "WorkerDown", worker: "0" });
          world.feed({ _tag: "WorkerUp", worker: "0" });
        }
        break;
      default:
        if (number % 50 === 0) world.feed({ _tag: "LinkRestored" });
        if (failing && number === 3) world.feed({ _tag: "Cancel" });
    }
  }
};

/** Nothing goes wrong any more: it must come to its end. */
const calm = (world: World): void => {
  for (let turn = 0; turn < 20_000 && world.save.phase._tag !== "Ended"; turn++) {
    world.now += 5;
    world.work(0, false);
    world.local(false);
    if (turn % 20 === 0) world.feed({ _tag: "Tick" });
  }
};

describe("a save, whatever workers do and in whatever order", () => {
  it("ends with every page in the file as it was when the guest stood still, and the guest running", () => {
    fc.assert(
      fc.property(chaos, fc.boolean(), fc.boolean(), (steps, running, stop) => {
        const world = new World(running, stop);
        storm(world, steps, false);
        calm(world);
        assert.deepStrictEqual(
          world.save.phase,
          { _tag: "Ended", outcome: "completed" },
          JSON.stringify(world.save.failure),
        );
        assert.strictEqual(world.running, running && !stop);
        const present = world.save.present[0]!;
        for (let page = 0; page < PAGES; page++) {
          const content = Bitmap.test(present, page) ? world.file[page]! : 0;
          assert.strictEqual(content, world.stopped![page], `page ${page}`);
        }
        assert.strictEqual(infoOfSave(world.save, world.now).status, "completed");
      }),
      { numRuns: 150 },
    );
  });

  it("ends once, with the guest as it was, when something fails or it is cancelled at any moment", () => {
    fc.assert(
      fc.property(chaos, fc.boolean(), fc.boolean(), (steps, running, stop) => {
        const world = new World(running, stop);
        storm(world, steps, true);
        calm(world);
        assert.strictEqual(world.save.phase._tag, "Ended");
        const { phase } = world.save;
        if (phase._tag === "Ended" && phase.outcome === "failed") {
          assert.isNotNull(world.save.failure);
          assert.isTrue(world.abandoned);
          assert.strictEqual(world.running, running);
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe("a worker that sleeps between reading pages and writing them", () => {
  /** Until a worker has read pages, which the guest then writes: everybody else goes on, and what is late goes to another. */
  const withSleeper = (minded: boolean) => {
    const world = new World(true, false);
    while (world.inside.length === 0) world.local(false);
    world.work(0, false);
    const sleeper = world.inside.shift()!;
    for (let page = 0; page < PAGES; page++) world.write(page);
    const work = world.work.bind(world);
    const local = world.local.bind(world);
    world.local = (fails) => {
      if (world.steps[0]?.step !== "shut-gate") return local(fails);
      if (minded) world.inside.push(sleeper);
      const { round } = world.steps[0];
      if (minded) local(fails);
      else {
        world.steps.shift();
        world.gate = 0;
        world.feed({ _tag: "GateShut", round });
      }
      if (minded) world.inside.splice(world.inside.indexOf(sleeper), 1);
    };
    for (let turn = 0; turn < 5000 && world.save.phase._tag !== "Ended"; turn++) {
      world.now += 500;
      work(0, false);
      world.local(false);
      world.feed({ _tag: "Tick" });
    }
    return { world, sleeper };
  };

  it("keeps the round from its end, and the save from its own", () => {
    const { world } = withSleeper(true);
    assert.strictEqual(world.save.phase._tag, "ShuttingGate");
    assert.isFalse(world.finished);
  });

  it("would leave old pages in the checkpoint if nobody minded the gate", () => {
    const { world, sleeper } = withSleeper(false);
    assert.deepStrictEqual(world.save.phase, { _tag: "Ended", outcome: "completed" });
    world.inside.push(sleeper);
    world.work(world.inside.length - 1, false);
    const wrong = world.file.filter((content, page) => content !== world.stopped![page]);
    assert.isAbove(wrong.length, 0);
  });
});

describe("a save whose workers sleep while the guest stands still", () => {
  const stopped = (): World => {
    const world = new World(true, false);
    for (let turn = 0; turn < 5000 && !world.save.last; turn++) {
      world.now += 5;
      world.write(turn % PAGES);
      world.work(0, false);
      world.local(false);
      if (turn % 20 === 0) world.feed({ _tag: "Tick" });
    }
    while (world.steps.length > 0) world.local(false);
    assert.isFalse(world.running);
    return world;
  };

  it("is given up at switchover-deadline, and the guest goes on", () => {
    const world = stopped();
    world.now += PARAMETER_DEFAULTS["switchover-deadline"] + 1000;
    world.feed({ _tag: "Tick" });
    world.local(false);
    assert.deepStrictEqual(world.save.phase, { _tag: "Ended", outcome: "failed" });
    assert.strictEqual(world.save.failure?.code, "switchover-deadline");
    assert.isTrue(world.running);
  });

  it("has no deadline any more once the guest goes on: disk and network take the time they take", () => {
    const world = stopped();
    for (let turn = 0; turn < 100 && world.save.phase._tag !== "Finishing"; turn++) {
      world.work(0, false);
      if (world.steps[0]?.step !== "finish") world.local(false);
    }
    assert.strictEqual(world.save.phase._tag, "Finishing");
    world.now += 10 * PARAMETER_DEFAULTS["switchover-deadline"];
    world.feed({ _tag: "Tick" });
    world.local(false);
    assert.deepStrictEqual(world.save.phase, { _tag: "Ended", outcome: "completed" });
  });
});

describe("a save of a guest whose memory is all zeros", () => {
  it("ends, though no rate was ever measured", () => {
    const world = new World(true, false);
    world.memory.fill(0);
    calm(world);
    assert.deepStrictEqual(world.save.phase, { _tag: "Ended", outcome: "completed" });
    assert.strictEqual(Bitmap.count(world.save.present[0]!), 0);
  });
});

describe("a save of a guest that writes faster than the file is written", () => {
  it("gives up after stall-timeout, and says what to do", () => {
    const world = new World(true, false);
    for (let turn = 0; turn < 200_000 && world.save.phase._tag !== "Ended"; turn++) {
      world.now += 40;
      for (let page = 0; page < PAGES; page++) world.write(page);
      world.work(0, false);
      world.work(0, false);
      world.local(false);
      if (turn % 10 === 0) world.feed({ _tag: "Tick" });
    }
    assert.strictEqual(world.save.failure?.code, "stalled");
    assert.include(world.save.failure?.reason, "--stop");
    assert.isTrue(world.running);
    assert.strictEqual(infoOfSave(world.save, world.now).total, PAGES * PAGE_BYTES);
  });
});
