import { readdirSync, statSync } from "node:fs";
import { assert, describe, it } from "@effect/vitest";
import { probeSoftDirty, probeUserfaultfd } from "@godwit/host";
import * as Effect from "effect/Effect";
import { startWriter } from "../testing/writer.ts";
import { openTracker } from "./tracker.ts";

const BLOCK_PAGES = [8];
const softDirtyWorks = probeSoftDirty()._tag === "Works";
const userfaultfdWorks = probeUserfaultfd()._tag === "Works";

const failureOf = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.map(Effect.flip(effect), String);

describe("opening a tracker", () => {
  it.live.skipIf(!userfaultfdWorks)("takes userfaultfd for a guest that has armed its memory", () =>
    Effect.gen(function* () {
      const { process, directory } = yield* startWriter({ blockPages: BLOCK_PAGES, userfaultfd: true });
      const tracker = yield* openTracker({ kind: "auto", process, shadowDirectory: directory });
      assert.equal(tracker.kind, "userfaultfd");
      assert.deepEqual(tracker.readFrom, process.blocks);
    }),
  );

  it.live("takes the next best for a guest that has not", () =>
    Effect.gen(function* () {
      const { process, directory } = yield* startWriter({ blockPages: BLOCK_PAGES, userfaultfd: false });
      const tracker = yield* openTracker({ kind: "auto", process, shadowDirectory: directory });
      assert.equal(tracker.kind, softDirtyWorks ? "soft-dirty" : "content");
    }),
  );

  it.live("refuses userfaultfd for a guest that says it has armed its memory and has not", () =>
    Effect.gen(function* () {
      const { process, directory } = yield* startWriter({ blockPages: BLOCK_PAGES, userfaultfd: false });
      const lying = { ...process, userfaultfd: true };
      const refused = yield* failureOf(
        openTracker({ kind: "userfaultfd", process: lying, shadowDirectory: directory }),
      );
      assert.include(refused, "EPERM");
      const honest = yield* failureOf(openTracker({ kind: "userfaultfd", process, shadowDirectory: directory }));
      assert.include(honest, "has not registered its memory");
    }),
  );

  it.live("refuses a block that is not mapped where it is said to be", () =>
    Effect.gen(function* () {
      const { process, directory } = yield* startWriter({ blockPages: BLOCK_PAGES, userfaultfd: true });
      const wrong = {
        ...process,
        blocks: process.blocks.map((block) => ({ ...block, address: block.address + 4096n })),
      };
      const refused = yield* failureOf(
        openTracker({ kind: "userfaultfd", process: wrong, shadowDirectory: directory }),
      );
      assert.include(refused, "does not map block block0");
    }),
  );

  it.live("says why each tracker was not to be had when none is", () =>
    Effect.gen(function* () {
      const { process } = yield* startWriter({ blockPages: BLOCK_PAGES, userfaultfd: false });
      const gone = { ...process, pid: 2 ** 22 + 1 };
      const refused = yield* failureOf(openTracker({ kind: "auto", process: gone, shadowDirectory: "/nonexistent" }));
      for (const kind of ["userfaultfd", "soft-dirty", "content"]) assert.include(refused, `${kind} tracker:`);
    }),
  );

  it.live("leaves no file behind once its scope has ended", () =>
    Effect.gen(function* () {
      const { process, directory } = yield* startWriter({ blockPages: [8, 4], userfaultfd: false });
      const open = openTracker({ kind: "content", process, shadowDirectory: directory });
      const during = yield* Effect.scoped(
        Effect.gen(function* () {
          const tracker = yield* open;
          yield* tracker.sync(() => {});
          return readdirSync(directory).length;
        }),
      );
      assert.equal(during, 3);
      assert.deepEqual(readdirSync(directory), ["ram"]);
    }),
  );

  it.live("gives zero pages no memory in the shadow", () =>
    Effect.gen(function* () {
      const { process, directory, tell } = yield* startWriter({ blockPages: [1000], userfaultfd: false });
      yield* tell({ _tag: "Fill", firstPage: 0, pages: 1000, value: 0 });
      yield* tell({ _tag: "Fill", firstPage: 100, pages: 10, value: 1 });
      const tracker = yield* openTracker({ kind: "content", process, shadowDirectory: directory });
      const shadowPages = () => (statSync(tracker.readFrom[0]!.path).blocks * 512) / 4096;
      yield* tracker.sync(() => {});
      assert.equal(shadowPages(), 10);
      yield* tell({ _tag: "Fill", firstPage: 100, pages: 4, value: 0 });
      yield* tracker.sync(() => {});
      assert.equal(shadowPages(), 6);
    }),
  );
});
