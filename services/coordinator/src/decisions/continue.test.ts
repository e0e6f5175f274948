import { PARAMETER_DEFAULTS, proposeCapabilities, type SourceReport } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { makeMigration, step } from "./migration.ts";
import type { Migration, MigrationEffect } from "./migration-state.ts";

const EPOCH = 3;

const waiting = (): Migration => {
  const migration = makeMigration({
    migration: "0123456789abcdef",
    guest: "vm1",
    source: "a",
    destination: "b",
    parameters: PARAMETER_DEFAULTS,
    capabilities: proposeCapabilities({ "pause-before-switchover": true }) as never,
    term: 1,
    owner: "c".repeat(16),
    revision: 1,
    attempt: 1,
    startedAt: 0,
    now: 0,
    phase: { _tag: "Switching" },
  });
  migration.epoch = EPOCH;
  return migration;
};

const report = (phase: SourceReport["phase"], attempt = 1): SourceReport => ({
  migration: "0123456789abcdef" as SourceReport["migration"],
  term: 1,
  attempt,
  incarnation: "00000000000000aa" as SourceReport["incarnation"],
  phase,
  epoch: EPOCH,
});

const continues = (effects: ReadonlyArray<MigrationEffect>): number =>
  effects.filter((effect) => effect._tag === "ToSource" && effect.command._tag === "Continue").length;

describe("continue", () => {
  it("is said again until the source has left pre-switchover: the first word may be lost", () => {
    const migration = waiting();
    expect(continues(step(migration, { _tag: "SourceReported", report: report("pre-switchover") }, 10))).toBe(0);
    expect(continues(step(migration, { _tag: "Continue" }, 20))).toBe(1);
    expect(continues(step(migration, { _tag: "SourceReported", report: report("pre-switchover") }, 220))).toBe(1);
    expect(continues(step(migration, { _tag: "SourceReported", report: report("stopping") }, 420))).toBe(0);
  });

  it("holds for its own attempt: the guest has run since, and the operator is asked anew", () => {
    const migration = waiting();
    step(migration, { _tag: "SourceReported", report: report("pre-switchover") }, 10);
    step(migration, { _tag: "Continue" }, 20);
    migration.attempt = 2;
    expect(continues(step(migration, { _tag: "SourceReported", report: report("pre-switchover", 2) }, 220))).toBe(0);
  });
});
