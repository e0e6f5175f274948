import { Ledger } from "@godwit/multifd";
import { describe, expect, it } from "vitest";
import type { Source } from "./source-state.ts";
import { make, until, Watch } from "./source-watch.conformance.ts";

const pagesSent = ({ ledger }: Source): number =>
  [...ledger.outstanding.values()].reduce((pages, { work }) => pages + (work.kind === "pages" ? work.pages : 0), 0);

describe("the last round", () => {
  it("is on its way while it is still being looked for, the device state first", () => {
    const watch = new Watch(make());
    until(watch, "SavingDeviceState");
    const { source } = watch;
    watch.happen({ _tag: "DeviceStateSaved", bytes: 300_000, digest: 7 });
    expect([...source.ledger.outstanding.values()].map(({ work }) => work.kind)).toEqual(["slice", "slice"]);
    watch.happen({ _tag: "Found", round: source.ledger.round, block: 0, runs: [3, 2] });
    expect(source.phase._tag).toBe("FinalSync");
    expect([...source.ledger.outstanding.values()].at(-1)!.work).toMatchObject({ kind: "pages", pages: 2 });
    const handedOut = source.ledger.nextItem;
    watch.happen({ _tag: "Synced", round: source.ledger.round, dirtyPages: 2, syncMs: 1 });
    expect(source.manifest!.items).toBeGreaterThanOrEqual(handedOut);
  });

  it.each([
    ["content", 1],
    ["userfaultfd", 31],
  ])("of tracker %s, whose copy is old where the sync has not come, begins with %i of the pages", (tracker, pages) => {
    const watch = new Watch(make());
    until(watch, "SavingDeviceState");
    const { source } = watch;
    source.tracker = tracker;
    // Owed from the round before.
    Ledger.found(source.ledger, 0, 20, 30);
    watch.happen({ _tag: "DeviceStateSaved", bytes: 0, digest: 7 });
    watch.happen({ _tag: "Found", round: source.ledger.round, block: 0, runs: [0, 1] });
    expect(pagesSent(source)).toBe(pages);
    watch.happen({ _tag: "Synced", round: source.ledger.round, dirtyPages: 1, syncMs: 1 });
    expect(pagesSent(source)).toBe(31);
    expect(source.manifest!.items).toBe(source.ledger.nextItem);
  });

  it("of a postcopy has the device state alone before its sync has ended", () => {
    const watch = new Watch(make({ "postcopy-ram": true }));
    until(watch, "SavingDeviceState");
    const { source } = watch;
    source.postcopy = true;
    watch.happen({ _tag: "DeviceStateSaved", bytes: 300_000, digest: 7 });
    watch.happen({ _tag: "Found", round: source.ledger.round, block: 0, runs: [3, 2] });
    expect([...source.ledger.outstanding.values()].every(({ work }) => work.kind === "slice")).toBe(true);
    watch.happen({ _tag: "Synced", round: source.ledger.round, dirtyPages: 2, syncMs: 1 });
    expect(source.missing).not.toBeNull();
    expect([...source.ledger.outstanding.values()].every(({ work }) => work.kind === "slice")).toBe(true);
  });
});
