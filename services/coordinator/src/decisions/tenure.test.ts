import { PARAMETER_DEFAULTS, type SourceReport } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { statusOf } from "./info.ts";
import type { MigrationEffect, MigrationEventIn, Phase } from "./migration-state.ts";
import { commandsIn, entryOf, sourceReport, until, verdict, Watch } from "./migration-watch.conformance.ts";
import { isSaved } from "./tenure.ts";

/** In this phase, with a migrations bucket that answers when the test does. */
const slowly = (phase: Phase["_tag"]): Watch => {
  const watch = until(new Watch(), phase);
  while (!isSaved(watch.migration)) watch.happen({ _tag: "Tick" });
  watch.bucket = "slow";
  return watch;
};
const namesIn = (effects: ReadonlyArray<MigrationEffect>): string[] => effects.map(({ _tag }) => _tag);
const reported = (watch: Watch, change: Partial<SourceReport>): MigrationEventIn => ({
  _tag: "SourceReported",
  report: sourceReport(watch.migration, change),
});
const asked = (watch: Watch): MigrationEventIn => reported(watch, { phase: "precopy", verdict: verdict(1e12)! });
/** Another coordinator has written since. */
const takenOver = (watch: Watch): ReadonlyArray<MigrationEffect> => {
  const { term, tenure } = watch.migration;
  expect(namesIn(watch.happen({ _tag: "SaveAnswered", save: tenure.pending ?? 0, outcome: "Lost" }))).toContain(
    "ReadSaved",
  );
  return watch.happen({ _tag: "SavedRead", stored: { term: term + 1, revision: tenure.revision + 1 } });
};

describe("a coordinator that stood still", () => {
  it.each(["Claiming", "Preparing", "Starting", "Active", "Switching", "Aborting", "Adopting"] as const)(
    "says nothing in %s before it knows that it still is the owner",
    (phase) => {
      const watch =
        phase === "Aborting" || phase === "Adopting"
          ? new Watch(phase === "Aborting" ? { _tag: phase, next: "cancelled" } : { _tag: phase })
          : slowly(phase);
      watch.bucket = "slow";
      watch.now += 20_000;
      expect(namesIn(watch.happen({ _tag: "Tick" }))).toEqual(["Save", "WakeAt"]);
      expect(namesIn(watch.happen(asked(watch)))).toEqual(["WakeAt"]);
      expect(takenOver(watch)).toEqual([{ _tag: "Leave" }]);
      expect(watch.happen(asked(watch))).toEqual([]);
      expect(watch.happen({ _tag: "Cancel" })).toEqual([]);
    },
  );

  it("goes on where it was when nobody has taken over, and takes nobody for silent who could not be heard", () => {
    for (const phase of ["Preparing", "Active", "Switching"] as const) {
      const watch = until(new Watch(), phase);
      for (let sleeps = 0; sleeps < 10; sleeps++) {
        watch.now += 20_000;
        watch.happen({ _tag: "Tick" });
        watch.pass(500);
      }
      expect(watch.migration.phase._tag).toBe(phase);
    }
  });

  it("counts silence from before on from where it was", () => {
    const watch = until(new Watch(), "Switching");
    watch.pass(10_000);
    watch.now += 20_000;
    watch.happen({ _tag: "Tick" });
    watch.pass(4000);
    expect(watch.migration.phase._tag).toBe("Switching");
    watch.pass(2000);
    expect(watch.migration.phase._tag).toBe("Reckoning");
  });

  it("does not call a precopy stalled for the time in which it judged no pass", () => {
    const watch = until(new Watch(), "Active");
    watch.happen(asked(watch));
    watch.now += 2 * PARAMETER_DEFAULTS["stall-timeout"];
    watch.happen({ _tag: "Tick" });
    const worse = reported(watch, { phase: "precopy", verdict: verdict(2e12)! });
    expect(commandsIn(watch.happen(worse))).toContain("Verdict");
    expect(watch.migration.phase._tag).toBe("Active");
  });

  it("takes no answer to a save that was begun before for a proof", () => {
    const watch = slowly("Active");
    watch.happen({ _tag: "Tune", parameters: PARAMETER_DEFAULTS });
    const before = watch.saved();
    watch.now += 20_000;
    expect(namesIn(watch.happen(before))).toEqual(["Save", "WakeAt"]);
    expect(watch.migration.tenure.doubt).not.toBeNull();
    watch.happen(watch.saved());
    expect(watch.migration.tenure.doubt).toBeNull();
  });

  it("keeps what an operator wants meanwhile, and does it once it knows", () => {
    const watch = slowly("Active");
    watch.now += 20_000;
    expect(commandsIn(watch.happen({ _tag: "Cancel" }))).toEqual([]);
    expect(commandsIn(watch.happen(watch.saved()))).toEqual(["Abort", "Abandon"]);
  });
});

describe("a coordinator whose own link was away", () => {
  it("is in doubt until a save is won, however often it comes and goes", () => {
    const watch = slowly("Active");
    expect(namesIn(watch.happen({ _tag: "LinkChanged" }))).toEqual(["Save", "WakeAt"]);
    const during = watch.saved();
    watch.happen({ _tag: "LinkChanged" });
    watch.happen(during);
    expect(watch.migration.tenure.doubt).not.toBeNull();
    watch.happen(watch.saved());
    expect(watch.migration.tenure.doubt).toBeNull();
  });
});

describe("a report with a higher term", () => {
  it("makes a coordinator silent at once, and the migrations bucket ends its session", () => {
    const watch = slowly("Active");
    const higher = reported(watch, { phase: "completed", term: watch.migration.term + 1 });
    expect(namesIn(watch.happen(higher))).toEqual(["Save", "WakeAt"]);
    expect(takenOver(watch)).toEqual([{ _tag: "Leave" }]);
  });

  it("that a stranger made up costs one save", () => {
    const watch = slowly("Active");
    watch.happen(reported(watch, { phase: "completed", term: 1e9 }));
    watch.happen(watch.saved());
    expect(commandsIn(watch.happen(asked(watch)))).toContain("Verdict");
  });
});

describe("a save", () => {
  const lost = (watch: Watch): void => {
    const save = watch.migration.tenure.pending ?? 0;
    watch.happen({ _tag: "SaveAnswered", save, outcome: "Lost" });
  };
  const tuned = (): Watch => {
    const watch = slowly("Active");
    watch.happen({ _tag: "Tune", parameters: PARAMETER_DEFAULTS });
    return watch;
  };

  it("that was refused because an earlier one of its own had landed late goes on from that", () => {
    const watch = tuned();
    const { term, tenure } = watch.migration;
    const revision = tenure.revision + 3;
    lost(watch);
    const effects = watch.happen({ _tag: "SavedRead", stored: { term, revision } });
    expect(effects).toContainEqual({ _tag: "Save", save: tenure.saves, revision });
  });

  it("is not given up for a stale read, not even for one that shows another owner of long ago", () => {
    const watch = tuned();
    const { term } = watch.migration;
    const { revision } = watch.migration.tenure;
    for (const stored of ["Unknown", null, { term: term - 1, revision: 3 }, { term, revision }] as const) {
      lost(watch);
      expect(namesIn(watch.happen({ _tag: "SavedRead", stored }))).not.toContain("Save");
      watch.now += 250;
      expect(watch.happen({ _tag: "Tick" })).toContainEqual(expect.objectContaining({ _tag: "Save", revision }));
    }
  });

  it("that has no outcome, however often, holds nothing up: the migration goes on, and it is tried every 250 ms", () => {
    const watch = tuned();
    let saves = 0;
    for (let tries = 0; tries < 40; tries++) {
      const save = watch.migration.tenure.pending ?? 0;
      watch.happen({ _tag: "SaveAnswered", save, outcome: "Unknown" });
      watch.now += 250;
      saves += namesIn(watch.happen({ _tag: "Tick" })).filter((name) => name === "Save").length;
      expect(commandsIn(watch.happen(asked(watch)))).toContain("Verdict");
    }
    expect(saves).toBe(40);
  });
});

describe("an ending", () => {
  it("is told to nobody before it is saved, and then to both sides", () => {
    const watch = slowly("Switching");
    const effects = watch.happen(reported(watch, { phase: "completed" }));
    expect(namesIn(effects)).toContain("Save");
    expect(namesIn(effects)).not.toContain("Publish");
    expect(statusOf(watch.migration)).toBe("device");
    expect(commandsIn(watch.happen(watch.saved()))).toEqual(["Conclude", "Conclude"]);
    expect(statusOf(watch.migration)).toBe("completed");
  });
});

describe("a fence", () => {
  /** A source that is silent in the switchover, and a record that says so. */
  const silent = (): Watch => {
    const watch = slowly("Switching");
    watch.happen(watch.saved());
    watch.bucket = "quick";
    watch.pass(15_000);
    expect(watch.migration.phase).toMatchObject({ _tag: "Reckoning", silent: true });
    watch.bucket = "slow";
    return watch;
  };
  const recordRead = (watch: Watch) =>
    watch.happen({
      _tag: "RecordRead",
      entry: entryOf({ state: "switching", epoch: watch.migration.epoch as never }),
    });

  it("is written when a save that was begun after the decision is won, and again only by another save", () => {
    const watch = silent();
    expect(namesIn(recordRead(watch))).toEqual(["Save", "WakeAt"]);
    expect(namesIn(watch.happen(watch.saved()))).toContain("WriteRecord");
    watch.now += 250;
    const again = namesIn(watch.happen({ _tag: "Tick" }));
    expect(again).toContain("Save");
    expect(again).not.toContain("WriteRecord");
    expect(namesIn(watch.happen(watch.saved()))).toContain("WriteRecord");
  });

  it("is not written upon a save that was on its way when it was decided", () => {
    const watch = silent();
    watch.happen({ _tag: "Tune", parameters: PARAMETER_DEFAULTS });
    recordRead(watch);
    expect(namesIn(watch.happen(watch.saved()))).not.toContain("WriteRecord");
    expect(namesIn(watch.happen(watch.saved()))).toContain("WriteRecord");
  });

  it("is not written by a coordinator that has been replaced, wherever it slept", () => {
    const decided = silent();
    recordRead(decided);
    decided.now += 20_000;
    decided.happen({ _tag: "Tick" });
    expect(takenOver(decided)).toEqual([{ _tag: "Leave" }]);
    const undecided = silent();
    undecided.now += 20_000;
    expect(namesIn(recordRead(undecided))).toEqual(["Save", "WakeAt"]);
    expect(takenOver(undecided)).toEqual([{ _tag: "Leave" }]);
  });
});
