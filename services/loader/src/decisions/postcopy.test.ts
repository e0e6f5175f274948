import { Bitmap } from "@godwit/memory";
import { PAGE_BYTES } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  isExpected,
  makePostcopy,
  type Postcopy,
  type PostcopyBlock,
  type PostcopyEffect,
  type PostcopyEvent,
  stepPostcopy,
  type Way,
  wayOf,
} from "./postcopy.ts";
import { postcopyInfoOf } from "./postcopy-info.ts";

const MIB = 256;
const GIB = 1024 * MIB;

interface Options {
  readonly blocks?: ReadonlyArray<PostcopyBlock>;
  readonly missing?: (block: number, page: number) => boolean;
  readonly preempt?: boolean;
  readonly prefetch?: boolean;
  readonly autoRecover?: boolean;
  readonly channels?: number;
}

type Ask = Extract<PostcopyEffect, { _tag: "Ask" }>;

/** A source that answers what it is asked when it is told to, and remembers who asked for which page how. */
class Scene {
  readonly postcopy: Postcopy;
  readonly blocks: ReadonlyArray<PostcopyBlock>;
  now = 1000;
  /** Asked and not answered, by item number. */
  readonly asked = new Map<number, Ask>();
  readonly order: Ask[] = [];
  /** By block and page: the one way on which it was asked for. */
  readonly ways = new Map<string, Way>();
  readonly zeroed: string[] = [];
  allThere = 0;

  constructor(options: Options = {}) {
    this.blocks = options.blocks ?? [{ pages: 1024, hostPages: 1 }];
    const missing = this.blocks.map(({ pages }, block) => {
      const bitmap = Bitmap.make(pages);
      if (options.missing === undefined) Bitmap.setAll(bitmap);
      else for (let page = 0; page < pages; page++) if (options.missing(block, page)) Bitmap.setRange(bitmap, page, 1);
      return bitmap;
    });
    this.postcopy = makePostcopy({
      blocks: this.blocks,
      missing,
      itemPagesMax: 64,
      channels: options.channels ?? 2,
      bytesPerSecond: 0,
      preempt: options.preempt ?? true,
      prefetch: options.prefetch ?? true,
      autoRecover: options.autoRecover ?? true,
      now: this.now,
    });
  }

  happen(event: PostcopyEvent): void {
    for (const effect of stepPostcopy(this.postcopy, event, this.now)) {
      if (effect._tag === "AllThere") this.allThere++;
      if (effect._tag === "Zero") this.zeroed.push(`${effect.block}-${effect.page}`);
      if (effect._tag === "WakeAt") expect(effect.at).toBeGreaterThan(this.now);
      if (effect._tag === "Ask") this.note(effect);
    }
    expect(this.postcopy.missingPages).toBe(
      this.postcopy.missing.reduce((sum, bitmap) => sum + Bitmap.count(bitmap), 0),
    );
  }

  note(ask: Ask): void {
    const { item, way } = ask;
    expect(wayOf(item.item)).toBe(way);
    expect(this.postcopy.workers.has(ask.worker)).toBe(true);
    this.asked.set(item.item, ask);
    this.order.push(ask);
    for (const { key } of pagesOf(ask)) {
      expect(this.ways.get(key) ?? way, `page ${key} is asked for on two ways`).toBe(way);
      this.ways.set(key, way);
    }
  }

  answer(ask: Ask): void {
    this.asked.delete(ask.item.item);
    this.happen({ _tag: "Arrived", way: ask.way, item: ask.item.item, wireBytes: ask.item.bytes });
  }

  touch(page: number, thread = 1, block = 0): void {
    this.happen({ _tag: "Touched", block, page, thread, since: this.now });
  }

  workers(count: number): this {
    for (let worker = 0; worker < count; worker++) this.happen({ _tag: "WorkerUp", worker: `w${worker}` });
    this.happen({ _tag: "Tick" });
    return this;
  }
}

const pagesOf = ({ item }: Ask): Array<{ block: number; page: number; key: string }> => {
  if (item.work.kind !== "pages") throw new Error("only pages are asked for");
  const { block, runs } = item.work;
  const pages = [];
  for (let r = 0; r < runs.length; r += 2)
    for (let page = runs[r]!; page < runs[r]! + runs[r + 1]!; page++)
      pages.push({ block, page, key: `${block}-${page}` });
  return pages;
};
const firstPage = (ask: Ask): number => pagesOf(ask)[0]!.page;

describe("pages that are missing", () => {
  it("all come, each asked for on one way only, whatever is touched, lost, doubled or refused, and whoever dies", () => {
    const events = fc.array(fc.tuple(fc.nat(9), fc.nat(100_000), fc.constantFrom(0, 1, 5, 50, 400, 5000)), {
      minLength: 20,
      maxLength: 200,
      size: "max",
    });
    let touches = 0;
    fc.assert(
      fc.property(
        events,
        fc.boolean(),
        fc.constantFrom(1, 8, 512),
        fc.integer({ min: 1, max: 4 }),
        (fate, preempt, hostPages, density) => {
          const pages = hostPages === 512 ? 4 * 512 : 700;
          // Whole host pages are missing, as the source names them.
          const missing = (_: number, page: number): boolean => Math.floor(page / hostPages) % density === 0;
          const scene = new Scene({ blocks: [{ pages, hostPages }], missing, preempt }).workers(3);
          for (const [kind, choice, ms] of fate) {
            scene.now += ms;
            const asked = [...scene.asked.values()];
            const one = asked[choice % Math.max(1, asked.length)];
            const worker = `w${choice % 3}`;
            if (kind <= 2 && one !== undefined) scene.answer(one);
            else if (kind === 3 && one !== undefined) {
              scene.answer(one);
              scene.answer(one);
            } else if (kind === 4) {
              touches++;
              scene.touch(choice % pages, choice % 4);
            } else if (kind === 5) scene.happen({ _tag: "WorkerDown", worker });
            else if (kind === 6) scene.happen({ _tag: "WorkerUp", worker });
            else if (kind === 7 && one !== undefined)
              scene.happen({ _tag: "Refused", way: one.way, item: one.item.item });
            else if (kind === 8) scene.happen({ _tag: choice % 2 === 0 ? "LinkRestored" : "Pause" });
            else scene.happen({ _tag: "Tick" });
          }
          scene.happen({ _tag: "Recover" });
          scene.workers(3);
          for (let turns = 0; scene.allThere === 0; turns++) {
            if (turns > 10_000) throw new Error(`${scene.postcopy.missingPages} pages never come`);
            const [next] = scene.asked.values();
            if (next !== undefined) scene.answer(next);
            scene.now += 10;
            scene.happen({ _tag: "Tick" });
          }
          expect(scene.allThere).toBe(1);
          expect(scene.postcopy.waits.size).toBe(0);
          expect(postcopyInfoOf(scene.postcopy, scene.now).remaining).toBe(0);
        },
      ),
      { numRuns: 300 },
    );
    expect(touches).toBeGreaterThan(1000);
  });

  it("that a vCPU touches are asked for at once, by a worker that has nothing else to do", () => {
    const scene = new Scene().workers(3);
    scene.touch(900);
    const ask = scene.order.at(-1)!;
    expect(ask).toMatchObject({ way: "urgent", worker: "w2" });
    expect(pagesOf(ask).map(({ page }) => page)).toEqual([900]);
    for (const { way, worker } of scene.order) expect(worker === "w2").toBe(way === "urgent");
  });

  it("that are on their way already are not asked for again when they are touched", () => {
    const scene = new Scene().workers(3);
    const before = scene.order.length;
    scene.touch(firstPage(scene.order[0]!));
    expect(scene.order.length).toBe(before);
  });

  it("have the background hold back to one packet for as long as a vCPU waits", () => {
    const scene = new Scene({ blocks: [{ pages: 64 * MIB, hostPages: 1 }] }).workers(3);
    const background = (): Ask[] => [...scene.asked.values()].filter(({ way }) => way === "background");
    expect(background().length).toBe(4);
    scene.touch(50 * MIB);
    for (let answered = 0; answered < 10; answered++) scene.answer(background()[0]!);
    expect(background().length).toBe(1);
    scene.answer([...scene.asked.values()].find(({ way }) => way === "urgent")!);
    expect(background().length).toBe(4);
  });

  it("without a channel of their own come next in the background, when there is room", () => {
    const scene = new Scene({ preempt: false, blocks: [{ pages: 64 * MIB, hostPages: 1 }] }).workers(2);
    scene.touch(50 * MIB);
    expect(scene.order.some((ask) => firstPage(ask) === 50 * MIB)).toBe(false);
    scene.answer(scene.order[0]!);
    expect(firstPage(scene.order.at(-1)!)).toBe(50 * MIB);
    expect(scene.order.every(({ way }) => way === "background")).toBe(true);
  });

  it("that nobody waits for come from behind the last touch on; from front to back with prefetch off", () => {
    for (const prefetch of [true, false]) {
      const scene = new Scene({ prefetch, blocks: [{ pages: 64 * MIB, hostPages: 1 }] }).workers(2);
      const reached = Math.max(...scene.order.flatMap((ask) => pagesOf(ask).map(({ page }) => page)));
      scene.touch(50 * MIB);
      scene.answer(scene.order.at(-1)!);
      scene.answer(scene.order[0]!);
      expect(firstPage(scene.order.at(-1)!)).toBe(prefetch ? 50 * MIB + 1 : reached + 1);
    }
  });

  it("were touched and are not missing: the vCPU gets zeros, or what is there already", () => {
    const scene = new Scene({ missing: (_, page) => page < 10 }).workers(2);
    scene.touch(20);
    expect(scene.zeroed).toEqual(["0-20"]);
  });

  it("are only taken for what was asked for", () => {
    const scene = new Scene().workers(2);
    const { item, way } = scene.order[0]!;
    if (item.work.kind !== "pages") throw new Error("pages");
    const packet = { item: item.item, block: 0, runs: item.work.runs };
    expect(isExpected(scene.postcopy, way, packet)).toBe(true);
    expect(isExpected(scene.postcopy, way, { ...packet, block: 1 })).toBe(false);
    expect(isExpected(scene.postcopy, way, { ...packet, runs: Uint32Array.of(0, 1) })).toBe(false);
    expect(isExpected(scene.postcopy, way === "urgent" ? "background" : "urgent", packet)).toBe(false);
    scene.answer(scene.order[0]!);
    expect(isExpected(scene.postcopy, way, packet)).toBe(false);
  });
});

describe("host pages larger than a packet", () => {
  it("of 2 MiB come whole on the urgent channel, and the background waits for as long", () => {
    const scene = new Scene({ blocks: [{ pages: 128 * MIB, hostPages: 512 }] }).workers(3);
    const background = (): number => scene.order.filter(({ way }) => way === "background").length;
    scene.touch(20 * 512 + 77);
    const urgent = scene.order.filter(({ way }) => way === "urgent");
    expect(urgent.flatMap(pagesOf).map(({ page }) => page)).toEqual(
      Array.from({ length: 512 }, (_, n) => 20 * 512 + n),
    );
    const before = background();
    for (const ask of scene.order.filter(({ way }) => way === "background").slice(0, 3)) scene.answer(ask);
    expect(background()).toBe(before);
    for (const ask of urgent) scene.answer(ask);
    expect(background()).toBeGreaterThan(before);
  });

  it("that the background has begun with are ended there, before all else, and in no part on the urgent channel", () => {
    const scene = new Scene({ blocks: [{ pages: 128 * MIB, hostPages: 512 }] }).workers(3);
    // Two packets for each of two channels are out: half of the first host page.
    expect(scene.order.length).toBe(4);
    scene.touch(500);
    expect(scene.order.every(({ way }) => way === "background")).toBe(true);
    // Another one is waited for on the urgent channel; the one that was begun goes on all the same.
    scene.touch(30 * 512);
    for (let answered = 0; answered < 8; answered++)
      scene.answer([...scene.asked.values()].find(({ way }) => way === "background")!);
    const pages = scene.order.filter(({ way }) => way === "background").flatMap(pagesOf);
    expect(pages.map(({ page }) => page)).toEqual(Array.from({ length: 512 }, (_, n) => n));
    // What was waited for is whole, and the background waits for the other one.
    expect([...scene.asked.values()].some(({ way }) => way === "background")).toBe(false);
    expect(scene.postcopy.waits.size).toBe(1);
  });

  it("the background resumes where it was interrupted, and goes to the last touch only once its host page is whole", () => {
    const scene = new Scene({ blocks: [{ pages: 128 * MIB, hostPages: 512 }] }).workers(3);
    scene.touch(40 * 512);
    for (const ask of [...scene.order]) scene.answer(ask);
    while (scene.asked.size > 0 && scene.order.filter(({ way }) => way === "background").length < 12)
      scene.answer([...scene.asked.values()][0]!);
    const pages = scene.order
      .filter(({ way }) => way === "background")
      .flatMap(pagesOf)
      .map(({ page }) => page);
    expect(pages.slice(0, 512)).toEqual(Array.from({ length: 512 }, (_, n) => n));
    expect(pages[512]).toBe(41 * 512);
  });

  it("of 1 GiB: a touch in the second asks for all of it, in order, past the first", () => {
    const scene = new Scene({ blocks: [{ pages: 2 * GIB, hostPages: GIB }] }).workers(3);
    scene.touch(GIB + 12_345);
    let next = GIB;
    for (let asked = 0; asked < scene.order.length && scene.postcopy.waits.size > 0; ) {
      const urgent = scene.order.slice(asked).filter(({ way }) => way === "urgent");
      asked = scene.order.length;
      for (const ask of urgent) {
        expect(firstPage(ask)).toBe(next);
        next += pagesOf(ask).length;
        scene.answer(ask);
      }
    }
    expect(next).toBe(2 * GIB);
    expect(scene.postcopy.waits.size).toBe(0);
    expect(scene.order.filter(({ way }) => way === "background").length).toBe(4);
  });
});

describe("a source out of reach", () => {
  const cutOff = (options: Options = {}): Scene => {
    const scene = new Scene(options).workers(2);
    scene.now += 2500;
    scene.happen({ _tag: "Tick" });
    return scene;
  };
  it("is asked again and again, and the state says so; the first page that comes ends it", () => {
    const scene = cutOff();
    const before = scene.order.length;
    const info = postcopyInfoOf(scene.postcopy, scene.now);
    expect(info).toMatchObject({ state: "recover" });
    expect(info.reason).toMatch(/the last page came \d s ago/);
    scene.now += 3000;
    scene.happen({ _tag: "Tick" });
    expect(scene.order.length).toBeGreaterThan(before);
    scene.answer(scene.order.at(-1)!);
    expect(postcopyInfoOf(scene.postcopy, scene.now)).toMatchObject({ state: "active" });
  });
  it("is left alone with auto-recover off, until somebody says so", () => {
    const scene = cutOff({ autoRecover: false });
    expect(postcopyInfoOf(scene.postcopy, scene.now)).toMatchObject({ state: "paused" });
    const before = scene.order.length;
    for (let seconds = 0; seconds < 10; seconds++) {
      scene.now += 1000;
      scene.happen({ _tag: "Tick" });
    }
    expect(scene.order.length).toBe(before);
    scene.happen({ _tag: "Recover" });
    expect(scene.order.length).toBeGreaterThan(before);
    expect(postcopyInfoOf(scene.postcopy, scene.now)).toMatchObject({ state: "recover" });
  });
  it("without a single worker the state is paused, whatever auto-recover says", () => {
    const scene = cutOff();
    for (const worker of ["w0", "w1"]) scene.happen({ _tag: "WorkerDown", worker });
    expect(postcopyInfoOf(scene.postcopy, scene.now)).toMatchObject({ state: "paused" });
  });
  it("an urgent worker that does not answer is replaced by the next one", () => {
    const scene = new Scene().workers(3);
    scene.touch(900);
    expect(scene.order.at(-1)!.worker).toBe("w2");
    scene.now += 60;
    scene.happen({ _tag: "Tick" });
    expect(scene.order.filter(({ way }) => way === "urgent").map(({ worker }) => worker)).toEqual(["w2", "w0"]);
  });
});

describe("the time that vCPUs are blocked", () => {
  it("is counted for each, and for all together while none can go on", () => {
    const scene = new Scene().workers(3);
    scene.happen({ _tag: "Vcpus", count: 2 });
    scene.touch(900, 11);
    scene.now += 10;
    scene.touch(800, 12);
    scene.now += 5;
    const [first, second] = scene.order.filter(({ way }) => way === "urgent");
    scene.answer(first!);
    scene.now += 20;
    scene.answer(second!);
    expect(postcopyInfoOf(scene.postcopy, scene.now)).toMatchObject({
      requests: 2,
      blocktime: 5,
      "vcpu-blocktime": [15, 25],
      latency: { max: 25 },
      transferred: 2 * PAGE_BYTES,
    });
  });
});

describe("the background", () => {
  it("goes by max-postcopy-bandwidth as it is now: slower, faster, without limit", () => {
    const scene = new Scene({ blocks: [{ pages: 16 * MIB, hostPages: 1 }] }).workers(2);
    const asked = (ms: number): number => {
      const before = scene.order.length;
      for (const end = scene.now + ms; scene.now < end; scene.now += 20) {
        for (const ask of [...scene.asked.values()]) scene.answer(ask);
        scene.happen({ _tag: "Tick" });
      }
      return (scene.order.length - before) * 64 * PAGE_BYTES;
    };
    scene.happen({ _tag: "Tune", bytesPerSecond: 1024 ** 2 });
    asked(1000);
    const slow = asked(1000);
    expect(slow).toBeGreaterThan(0.5 * 1024 ** 2);
    expect(slow).toBeLessThan(1.5 * 1024 ** 2);
    scene.happen({ _tag: "Tune", bytesPerSecond: 8 * 1024 ** 2 });
    expect(asked(500)).toBeGreaterThan(3 * 1024 ** 2);
    scene.happen({ _tag: "Tune", bytesPerSecond: 0 });
    asked(200);
    expect(scene.allThere).toBe(1);
  });
  it("asks again for what was lost, also while vCPUs wait all the time for other pages", () => {
    const scene = new Scene({ blocks: [{ pages: 64 * MIB, hostPages: 1 }] }).workers(3);
    const lost = [...scene.asked.values()].filter(({ way }) => way === "background");
    for (let fault = 0; fault < 400; fault++) {
      scene.now += 1;
      scene.touch(30 * MIB + fault, 7);
      scene.now += 1;
      for (const ask of [...scene.asked.values()].filter(({ way }) => way === "urgent")) scene.answer(ask);
      scene.touch(50 * MIB + fault, 8);
      scene.happen({ _tag: "Tick" });
    }
    const again = scene.order.filter(({ item }) => item.item === lost[0]!.item.item);
    expect(again.length).toBeGreaterThan(1);
  });
});
