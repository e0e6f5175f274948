import type { OwnershipEntry, OwnershipRecord } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { recover } from "./recovery.ts";

const entries: fc.Arbitrary<OwnershipEntry> = fc
  .record({
    state: fc.constantFrom("source", "switching", "destination"),
    epoch: fc.integer({ min: 1, max: 1000 }),
    node: fc.constantFrom("a", "b"),
    open: fc.boolean(),
    wasRunning: fc.boolean(),
    revision: fc.integer({ min: 1, max: 1000 }),
  })
  .map(({ revision, ...fields }) => ({
    record: { ...fields, op: "earlier", migration: "0".repeat(16), incarnation: "d".repeat(16) } as OwnershipRecord,
    revision,
  }));

const STILL = { arriving: false, epoch: 0, running: false, pagesMissing: false };

describe("a loader that starts anew", () => {
  it("does nothing about a guest that never moved", () => {
    for (const arriving of [true, false])
      expect(recover(null, "b", "op", { ...STILL, arriving })).toEqual({ _tag: "Nothing" });
  });

  it("starts exactly the guests that were handed over to its node and not started yet, and closes their record as it was", () => {
    fc.assert(
      fc.property(entries, fc.boolean(), (entry, arriving) => {
        const { record, revision } = entry;
        const recovery = recover(entry, "b", "mine", { ...STILL, arriving });
        const handedOver = record.state === "destination" && record.node === "b" && record.open;
        expect(recovery._tag === "Start").toBe(handedOver);
        if (recovery._tag !== "Start") return;
        expect(recovery).toEqual({
          _tag: "Start",
          resume: record.wasRunning,
          record: { ...record, op: "mine" },
          closed: { ...record, op: "mine-closed", open: false },
          revision,
        });
      }),
    );
  });

  it("ends only what was on its way here, once the migration has ended with the guest at another node, or a restore has not won it", () => {
    fc.assert(
      fc.property(entries, fc.boolean(), fc.nat(1001), (entry, arriving, epoch) => {
        const { record, revision } = entry;
        const recovery = recover(entry, "b", "mine", { ...STILL, arriving, epoch });
        const isElsewhere = record.state === "source" && record.node !== "b";
        const leftBehind = arriving && !record.open && (isElsewhere || epoch > record.epoch);
        expect(recovery._tag === "Discard").toBe(leftBehind);
        // What was read is written again: only who is not stale wins.
        if (recovery._tag === "Discard")
          expect(recovery).toMatchObject({ record: { ...record, op: "mine" }, revision });
      }),
    );
  });

  it("looks again when a guest runs here and the record that was read is of before it was handed over", () => {
    const entry = (fields: object): OwnershipEntry => ({
      record: {
        epoch: 1,
        op: "earlier",
        migration: "0".repeat(16),
        wasRunning: true,
        open: true,
        ...fields,
      } as OwnershipRecord,
      revision: 2,
    });
    const look = (fields: object, running = true): string =>
      recover(entry(fields), "b", "mine", { ...STILL, running })._tag;
    expect(look({ state: "switching", node: "a", destination: "b" })).toBe("Later");
    expect(look({ state: "source", node: "a" })).toBe("Later");
    // One that stands still waits for a session, or for the record.
    expect(look({ state: "switching", node: "a", destination: "b" }, false)).toBe("Nothing");
    // Guests that run at home, on their way elsewhere or not, are the sender's.
    expect(look({ state: "switching", node: "b", destination: "c" })).toBe("Nothing");
    expect(look({ state: "source", node: "b" })).toBe("Nothing");
    expect(look({ state: "destination", node: "b" })).toBe("Start");
  });
});
