/** A session that a restarted loader goes on with: what its predecessor did counts, and nothing is thrown away that it may have handed over. */
import type { OwnershipEntry, OwnershipRecord } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { step } from "./destination.ts";
import {
  type Destination,
  type DestinationEffect,
  type DestinationEvent,
  makeDestination,
} from "./destination-state.ts";
import * as Fence from "./fence.ts";
import { reportOf } from "./loader.ts";

const MIGRATION = "0123456789abcdef";
const INCARNATION = "b".repeat(16);
const EPOCH = 4;
const PAGES = 64;
const FAILURE = { code: "cancelled", actor: "coordinator", step: "cancel", reason: "by request" } as const;
const entryOf = (change: Record<string, unknown>, revision = 9): OwnershipEntry => ({
  record: {
    epoch: EPOCH,
    op: "theirs",
    migration: MIGRATION,
    node: "a",
    open: true,
    wasRunning: true,
    ...change,
  } as OwnershipRecord,
  revision,
});
const handedOver = entryOf({ state: "destination", node: "b", incarnation: INCARNATION });
const switching = entryOf(
  {
    state: "switching",
    destination: "b",
    incarnation: INCARNATION,
    manifest: { round: 2, items: 1, deviceBytes: 0, deviceDigest: 0 },
  },
  7,
);

/** Prepared in its second life; `loaded`: the first had loaded the device state. */
const resumed = (loaded: boolean, words = new Uint32Array(Fence.wordsOf(PAGES))): Destination => {
  const destination = makeDestination({
    migration: MIGRATION,
    guest: "vm1",
    node: "b",
    source: "a",
    incarnation: INCARNATION,
    epoch: EPOCH,
    authority: { term: 1, coordinator: null },
    offer: {
      version: 2,
      driver: "builtin",
      machine: "m",
      hypervisor: "h",
      running: true,
      blocks: [{ name: "ram0", "length-bytes": PAGES * 4096, "page-size": 4096 }],
    },
    life: 1,
    now: 0,
  });
  step(destination, { _tag: "Prepared", words, loaded }, 0);
  return destination;
};
const stepsIn = (effects: ReadonlyArray<DestinationEffect>): ReadonlyArray<string> =>
  effects.flatMap((effect) => (effect._tag === "Local" ? [effect.step] : []));
const after = (destination: Destination, ...events: ReadonlyArray<DestinationEvent>): ReadonlyArray<string> =>
  events.flatMap((event) => stepsIn(step(destination, event, 10)));

describe("a resumed session", () => {
  it("says that it is ready, as the same incarnation, in another life", () => {
    expect(reportOf(resumed(false))).toMatchObject({ phase: "ready", incarnation: INCARNATION, life: 1, epoch: EPOCH });
  });

  it("goes on with the items that its predecessor had applied", () => {
    const words = new Uint32Array(Fence.wordsOf(PAGES));
    Fence.applied(Fence.make(MIGRATION, EPOCH, PAGES, words), { round: 2, item: 0 });
    const destination = resumed(false, words);
    expect(after(destination, { _tag: "RecordRead", op: "promise", entry: switching })).toEqual(["load-device-state"]);
  });

  it("looks at the record by itself, again and again: whoever would have told it may be gone", () => {
    const destination = resumed(false);
    const looks = [0, 1, 500, 501, 1000].map((now) =>
      step(destination, { _tag: "Tick" }, now).some(({ _tag }) => _tag === "ReadRecord"),
    );
    expect(looks).toEqual([true, false, true, false, true]);
  });

  it("starts a guest that its predecessor had committed", () => {
    const destination = resumed(true);
    expect(after(destination, { _tag: "RecordRead", op: "promise", entry: handedOver })).toEqual(["resume"]);
  });

  it("takes a commit of its predecessor's that lands before its own for its own", () => {
    const words = new Uint32Array(Fence.wordsOf(PAGES));
    Fence.applied(Fence.make(MIGRATION, EPOCH, PAGES, words), { round: 2, item: 0 });
    const destination = resumed(true, words);
    after(destination, { _tag: "RecordRead", op: "promise", entry: switching }, { _tag: "DeviceStateLoaded" });
    const { phase } = destination;
    if (phase._tag !== "Committing") throw new Error(phase._tag);
    const { op } = phase.settlement.record;
    expect(
      after(destination, { _tag: "RecordWritten", op, outcome: "Lost" }, { _tag: "RecordRead", op, entry: handedOver }),
    ).toEqual(["resume"]);
    expect(destination.failure).toBeNull();
  });

  it.each([
    ["a coordinator's word", { _tag: "Abandon", failure: FAILURE }],
    ["the conclusion", { _tag: "Concluded", failure: FAILURE }],
    ["a full file system", { _tag: "LocalFailed", step: "apply", failure: FAILURE }],
  ] satisfies ReadonlyArray<readonly [string, DestinationEvent]>)(
    "throws nothing away upon %s that its predecessor may have handed over: the record decides",
    (_, event) => {
      const destination = resumed(true);
      expect(after(destination, event)).toEqual([]);
      // Stale, or not yet taken back: neither says that it was not handed over.
      expect(after(destination, { _tag: "RecordRead", op: "promise", entry: switching })).toEqual([]);
      expect(after(destination, { _tag: "RecordRead", op: "promise", entry: entryOf({ state: "source" }, 5) })).toEqual(
        [],
      );
      expect(after(destination, { _tag: "RecordRead", op: "promise", entry: handedOver })).toEqual(["resume"]);
      expect(reportOf(destination).failure).toBeUndefined();
    },
  );

  it.each([
    ["closed", entryOf({ state: "source", open: false })],
    ["taken by a newer attempt", entryOf({ state: "source", epoch: EPOCH + 1 })],
  ])("is discarded once the record is %s", (_, entry) => {
    const destination = resumed(true);
    after(destination, { _tag: "Abandon", failure: FAILURE });
    expect(after(destination, { _tag: "RecordRead", op: "promise", entry })).toEqual(["discard"]);
    after(destination, { _tag: "Discarded" });
    expect(reportOf(destination)).toMatchObject({ phase: "failed", failure: FAILURE });
  });

  it("that had loaded nothing is discarded at once", () => {
    expect(after(resumed(false), { _tag: "Abandon", failure: FAILURE })).toEqual(["discard"]);
  });
});
