import { type DestinationReport, PARAMETER_DEFAULTS, proposeCapabilities, type SourceReport } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { makeMigration, step } from "./migration.ts";

const EPOCH = 3;
const MINUTE_MS = 60_000;

const shared = { migration: "0123456789abcdef", term: 1, epoch: EPOCH, incarnation: "00000000000000aa" };

describe("a migration that waits in pre-switchover", () => {
  it("speaks to its loader, which frees its memory after a minute in which it hears nobody", () => {
    const migration = makeMigration({
      migration: shared.migration,
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
    const source = { ...shared, attempt: 1, phase: "pre-switchover" } as unknown as SourceReport;
    const destination = { ...shared, phase: "ready", round: 2, "dropped-packets": 0 } as unknown as DestinationReport;
    let toldAt = 0;
    let longestSilenceMs = 0;
    for (let now = 0; now <= 10 * MINUTE_MS; now += 200) {
      const effects = [
        ...step(migration, { _tag: "SourceReported", report: source }, now),
        ...step(migration, { _tag: "DestinationReported", report: destination }, now),
        ...step(migration, { _tag: "Tick" }, now),
      ];
      if (effects.some(({ _tag }) => _tag === "ToDestination")) toldAt = now;
      longestSilenceMs = Math.max(longestSilenceMs, now - toldAt);
    }
    // Two of three may be lost.
    expect(longestSilenceMs).toBeLessThanOrEqual(MINUTE_MS / 3);
  });
});
