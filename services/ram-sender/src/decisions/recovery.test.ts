import type { OwnershipEntry, OwnershipRecord } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { recover, settled } from "./recovery.ts";

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
    record: {
      ...fields,
      op: "earlier",
      migration: "0123456789abcdef",
      incarnation: "d".repeat(16),
      ...(fields.state === "switching" ? { destination: "b", manifest: { round: 1, items: 0, deviceBytes: 0 } } : {}),
    } as OwnershipRecord,
    revision,
  }));

describe("a RAM sender that starts anew", () => {
  it("does nothing about a guest that was never moved", () => {
    expect(recover(null, "a", "op")._tag).toBe("Nothing");
  });

  it("lets a guest go on only by a write of `source` under a higher epoch, at the revision it has read, which closes nothing yet", () => {
    fc.assert(
      fc.property(entries, (entry) => {
        const recovery = recover(entry, "a", "mine");
        if (recovery._tag !== "TakeBack") return;
        expect(entry.record.node).toBe("a");
        expect(entry.record.state).not.toBe("destination");
        expect(entry.record.open).toBe(true);
        expect(recovery.resume).toBe(entry.record.wasRunning);
        expect(recovery.revision).toBe(entry.revision);
        expect(recovery.record).toMatchObject({ state: "source", node: "a", op: "mine", open: true });
        expect(recovery.record.epoch).toBe(entry.record.epoch + 1);
        expect(settled(recovery.record, "next")).toEqual({ ...recovery.record, op: "next", open: false });
      }),
    );
  });

  it("takes back every open record of its own node, `source` or `switching`, and no closed one", () => {
    fc.assert(
      fc.property(entries, (entry) => {
        const { state, node, open } = entry.record;
        const mine = node === "a" && state !== "destination";
        if (mine) expect(recover(entry, "a", "op")._tag).toBe(open ? "TakeBack" : "Nothing");
      }),
    );
  });

  it("never lets a guest go on, nor ends a copy, that another node may still be about to start or move", () => {
    fc.assert(
      fc.property(entries, (entry) => {
        const { state, node, open } = entry.record;
        const recovery = recover(entry, "a", "mine");
        if (node === "b" && open) expect(["Nothing", "Later", "Serve"]).toContain(recovery._tag);
        if (node === "a" && state === "destination") expect(recovery._tag).toBe("Nothing");
        if (recovery._tag !== "Discard") return;
        expect({ node, open }).toEqual({ node: "b", open: false });
        // What was read is written again: only who is not stale wins.
        expect(recovery).toMatchObject({ revision: entry.revision, record: { ...entry.record, op: "mine" } });
      }),
    );
  });
});
