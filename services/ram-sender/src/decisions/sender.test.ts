import {
  json,
  type MigrationInfo,
  PARAMETER_DEFAULTS,
  proposeCapabilities,
  type SourceCommand,
  SourceReport,
} from "@godwit/protocol";
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { type Routed, route, type Sender } from "./sender.ts";
import { step } from "./source.ts";
import type { Source } from "./source-state.ts";

const MIGRATION = "0123456789abcdef";
const OTHER = "f".repeat(16);
const FAILURE = { code: "cancelled", actor: "coordinator", step: "cancel", reason: "by request" } as const;
const ENDED = { _tag: "Ended", outcome: "failed" } as const;

let sender: Sender;
beforeEach(() => {
  sender = {
    node: "a",
    incarnation: "a".repeat(16),
    itemPagesMax: 64,
    sources: new Map(),
    saving: new Set(),
    recovering: new Set(),
  };
});

const COORDINATOR = "c".repeat(16);
const STRANGER = "feedfacecafebeef";
const shared = {
  migration: MIGRATION as never,
  source: "a",
  destination: "b",
  term: 1,
  coordinator: COORDINATOR as never,
};

type Change = Partial<Record<"migration" | "guest", string>> & { readonly term?: number; readonly attempt?: number };
const claim = ({ migration = MIGRATION, guest = "vm1", term = 1, attempt = 1 }: Change = {}): SourceCommand => ({
  _tag: "Claim",
  ...shared,
  migration: migration as never,
  term,
  attempt,
  guest,
  parameters: PARAMETER_DEFAULTS,
  capabilities: proposeCapabilities({}) as never,
});
const begun = (change: Change = {}): Source => {
  const routed = route(sender, claim(change), 0);
  if (routed._tag !== "Begin") throw new Error(routed._tag);
  return routed.source;
};
const start = { _tag: "Start", ...shared, epoch: 1, incarnation: "d".repeat(16) } as never as Extract<
  SourceCommand,
  { _tag: "Start" }
>;
const commands: ReadonlyArray<SourceCommand> = [
  start,
  { _tag: "Verdict", ...shared, epoch: 1 as never, round: 1, verdict: "iterate" },
  { _tag: "Tune", ...shared, epoch: 1 as never, parameters: PARAMETER_DEFAULTS, "parameters-revision": 1 },
  { _tag: "Abort", ...shared, attempt: 1, failure: FAILURE },
];
const info = { migration: MIGRATION } as unknown as MigrationInfo;

describe("a command to the RAM sender", () => {
  it.each([
    ["64 KiB", 65_536, 15],
    ["as much as here, or more", 8 * 1024 ** 2, 64],
    ["nobody says what", undefined, 64],
  ])("to start: packets fit a destination whose servers take %s as well", (_what, maxPayload, pages) => {
    const source = begun();
    const size = maxPayload === undefined ? {} : { "max-payload": maxPayload };
    const routed = route(sender, { ...start, ...size }, 0);
    if (routed._tag !== "Step") throw new Error(routed._tag);
    source.phase = { _tag: "Claimed" };
    source.epoch = 1;
    step(source, routed.event, 0);
    expect(source.itemPagesMax).toBe(pages);
  });

  it("to claim begins a source, once: said again it only asks how that one stands", () => {
    const source = begun();
    expect(source).toMatchObject({ migration: MIGRATION, guest: "vm1", attempt: 1, authority: { term: 1 }, epoch: 0 });
    expect(route(sender, claim(), 0)).toEqual({ _tag: "Show", source });
    expect(route(sender, claim({ attempt: 0 }), 0)).toEqual({ _tag: "Show", source });
    expect(sender.sources.size).toBe(1);
  });

  it("to claim again ends the attempt that is under way first, and begins the next one when that has ended", () => {
    const first = begun();
    const routed = route(sender, claim({ attempt: 2 }), 0);
    expect(routed).toMatchObject({
      _tag: "Step",
      source: first,
      event: { _tag: "Abort", failure: { code: "fenced" } },
    });
    first.phase = ENDED;
    const second = begun({ attempt: 2 });
    expect(second).not.toBe(first);
    expect(sender.sources.get(MIGRATION)).toBe(second);
    // The late copy of an old claim begins nothing.
    second.phase = ENDED;
    expect(route(sender, claim({ attempt: 1 }), 0)).toEqual({ _tag: "Show", source: second });
    expect(route(sender, claim({ attempt: 2 }), 0)).toEqual({ _tag: "Show", source: second });
  });

  it("to claim a guest that another migration moves is refused, until that one has ended", () => {
    const first = begun();
    const routed = route(sender, claim({ migration: OTHER }), 0);
    expect(routed).toMatchObject({
      _tag: "Answer",
      report: { migration: OTHER, phase: "failed", attempt: 1, failure: { code: "migration-in-progress" } },
    });
    expect(routed._tag === "Answer" && routed.report.failure?.reason).toContain(MIGRATION);
    expect(begun({ migration: OTHER, guest: "vm2" }).guest).toBe("vm2");
    first.phase = ENDED;
    expect(begun({ migration: "1".repeat(16) }).guest).toBe("vm1");
  });

  it("to claim a guest that is being recovered waits", () => {
    sender.recovering.add("vm1");
    expect(route(sender, claim(), 0)._tag).toBe("Ignore");
    expect(sender.sources.size).toBe(0);
  });

  it.each(commands)("$_tag goes to its source", (command) => {
    const source = begun();
    const routed = route(sender, command, 0);
    expect(routed).toMatchObject({ _tag: "Step", source, event: { _tag: command._tag } });
  });

  it("to go on from pre-switchover counts for the attempt it was said to, and no other", () => {
    const source = begun();
    source.epoch = 5;
    const go = (epoch: number): Routed => route(sender, { _tag: "Continue", ...shared, epoch: epoch as never }, 0);
    expect(go(4)._tag).toBe("Ignore");
    expect(go(5)).toMatchObject({ _tag: "Step", source, event: { _tag: "Continue" } });
  });

  it.each([...commands, { _tag: "Inspect", ...shared } as const])(
    "$_tag about a migration that nobody knows is answered so",
    (command) => {
      const routed = route(sender, command, 0);
      if (routed._tag !== "Answer") throw new Error(routed._tag);
      expect(routed.report).toMatchObject({ migration: MIGRATION, phase: "unknown", attempt: 0, epoch: 0 });
      const codec = json(SourceReport);
      expect(codec.decode(codec.encode(routed.report))).toEqual(routed.report);
    },
  );

  it("to abort an earlier attempt does not end the next", () => {
    const source = begun();
    source.attempt = 2;
    expect(route(sender, { _tag: "Abort", ...shared, attempt: 1, failure: FAILURE }, 0)).toEqual({ _tag: "Ignore" });
    expect(route(sender, { _tag: "Abort", ...shared, attempt: 2, failure: FAILURE }, 0)._tag).toBe("Step");
  });

  it("to abort what has ended shows how it ended", () => {
    const source = begun();
    source.phase = ENDED;
    expect(route(sender, { _tag: "Abort", ...shared, attempt: 1, failure: FAILURE }, 0)).toEqual({
      _tag: "Show",
      source,
    });
  });

  it("to conclude forgets what has ended, and nothing that has not", () => {
    const source = begun();
    route(sender, { _tag: "Conclude", ...shared, info }, 0);
    expect(sender.sources.get(MIGRATION)).toBe(source);
    source.phase = ENDED;
    route(sender, { _tag: "Conclude", ...shared, info }, 0);
    expect(sender.sources.size).toBe(0);
  });

  it("of an old coordinator is refused, and the newest term is kept", () => {
    const source = begun({ term: 3 });
    for (const command of commands)
      expect(route(sender, { ...command, term: 2 } as SourceCommand, 0)._tag).toBe("Refuse");
    expect(route(sender, claim({ term: 2, attempt: 2 }), 0)._tag).toBe("Refuse");
    route(sender, { _tag: "Inspect", ...shared, term: 7 }, 0);
    expect(source.authority.term).toBe(7);
    expect(route(sender, { _tag: "Inspect", ...shared, term: 6 }, 0)._tag).toBe("Refuse");
  });

  it.each([...commands, claim({ attempt: 2 }), { _tag: "Conclude", ...shared, info } as const])(
    "$_tag of another coordinator under the same term, or of another way, is refused and changes nothing",
    (command) => {
      const source = begun();
      const before = JSON.stringify(source.authority);
      const refused = (lie: object): string => {
        const routed = route(sender, { ...command, ...lie } as SourceCommand, 0);
        return routed._tag === "Refuse" ? routed.reason : routed._tag;
      };
      expect(refused({ coordinator: STRANGER })).toContain(`which is coordinator ${COORDINATOR}'s`);
      expect(refused({ destination: "c" })).toContain("which goes from a to b here");
      expect(refused({ source: "c" })).toContain("begins at node c, not here");
      expect(JSON.stringify(source.authority)).toBe(before);
      // The one who won the next term is the next owner, and from then on the only one.
      expect(refused({ coordinator: STRANGER, term: 2 })).not.toContain("coordinator");
      expect(refused({ term: 2 })).toContain(`which is coordinator ${STRANGER}'s`);
    },
  );

  it.each(commands)(
    "$_tag of a stranger is kept out by that alone: where nobody is known yet, it counts",
    (command) => {
      const source = begun();
      const stranger = { ...command, coordinator: STRANGER } as SourceCommand;
      expect(route(sender, stranger, 0)._tag).toBe("Refuse");
      source.authority.coordinator = null;
      expect(route(sender, stranger, 0)._tag).toBe("Step");
    },
  );

  it("in any order moves each guest at most once, and terms never go back", () => {
    const any = fc.record({
      kind: fc.constantFrom("Claim", "Inspect", "Abort", "Conclude", "end"),
      migration: fc.constantFrom("0".repeat(16), "1".repeat(16), "2".repeat(16)),
      guest: fc.constantFrom("vm1", "vm2"),
      term: fc.integer({ min: 1, max: 3 }),
      attempt: fc.integer({ min: 1, max: 3 }),
    });
    fc.assert(
      fc.property(fc.array(any, { maxLength: 40 }), (all) => {
        const fresh: Sender = { ...sender, sources: new Map(), saving: new Set(), recovering: new Set() };
        const terms = new Map<Source, number>();
        for (const { kind, migration, guest, term, attempt } of all) {
          const known = fresh.sources.get(migration);
          if (kind === "end" && known !== undefined) known.phase = ENDED;
          const command = { ...shared, migration: migration as never, term, failure: FAILURE, info };
          if (kind === "Claim") route(fresh, claim({ migration, guest, term, attempt }), 0);
          else if (kind !== "end") route(fresh, { _tag: kind, ...command } as SourceCommand, 0);
          const moving = [...fresh.sources.values()].filter((source) => source.phase._tag !== "Ended");
          expect(new Set(moving.map((source) => source.guest)).size).toBe(moving.length);
          for (const source of fresh.sources.values()) {
            expect(source.authority.term).toBeGreaterThanOrEqual(terms.get(source) ?? 0);
            terms.set(source, source.authority.term);
          }
        }
      }),
    );
  });
});
