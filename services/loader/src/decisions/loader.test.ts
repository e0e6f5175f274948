import {
  type DestinationCommand,
  DestinationReport,
  json,
  type MigrationInfo,
  type Offer,
  PARAMETER_DEFAULTS,
} from "@godwit/protocol";
import { beforeEach, describe, expect, it } from "vitest";
import type { Destination } from "./destination-state.ts";
import { infoOf, type Loader, reportOf, route } from "./loader.ts";

const MIGRATION = "0123456789abcdef";
const OTHER = "f".repeat(16);
const FAILURE = { code: "cancelled", actor: "coordinator", step: "cancel", reason: "by request" } as const;
const offer: Offer = {
  version: 1,
  driver: "builtin",
  machine: "m",
  hypervisor: "h",
  running: true,
  blocks: [{ name: "ram0", "length-bytes": 8192, "page-size": 4096 }],
};

let loader: Loader;
beforeEach(() => {
  loader = {
    node: "b",
    incarnation: "b".repeat(16),
    destinations: new Map(),
    discarding: new Set(),
    restoring: new Set(),
  } as never;
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

const prepare = (
  change: { migration?: string; guest?: string; epoch?: number; term?: number } = {},
): DestinationCommand => ({
  _tag: "Prepare",
  ...shared,
  migration: (change.migration ?? MIGRATION) as never,
  term: change.term ?? 1,
  epoch: (change.epoch ?? 5) as never,
  guest: change.guest ?? "vm1",
  offer,
  parameters: PARAMETER_DEFAULTS,
  capabilities: {},
});
const begun = (change: Parameters<typeof prepare>[0] = {}): Destination => {
  const routed = route(loader, prepare(change), 0);
  if (routed._tag !== "Begin") throw new Error(routed._tag);
  return routed.destination;
};
const info = { migration: MIGRATION } as unknown as MigrationInfo;

describe("how a destination stands", () => {
  it("shows packets that could not be opened, here and by the VFIO agent, and nothing of it where none are sealed", () => {
    const destination = begun();
    expect(reportOf(destination)).not.toHaveProperty("refused-packets");
    destination.refusedPackets = { replayed: 2, forged: 30 };
    expect(reportOf(destination)["refused-packets"]).toEqual({ replayed: 2, forged: 30 });
    const report = { "refused-packets": { replayed: 1, forged: 1 }, devices: [] };
    destination.devices = { report } as unknown as Destination["devices"];
    expect(reportOf(destination)["refused-packets"]).toEqual({ replayed: 3, forged: 31 });
    const shown = { cipher: "aes-256-gcm", "refused-packets": { replayed: 3, forged: 31 } };
    expect(infoOf(destination, 0).encryption).toEqual(shown);
    destination.refusedPackets = null;
    expect(infoOf(destination, 0)).not.toHaveProperty("encryption");
  });
});

describe("a command to the loader", () => {
  it("to prepare begins a destination, once: said again, or late, it only asks how that one stands", () => {
    const destination = begun();
    expect(destination).toMatchObject({ migration: MIGRATION, guest: "vm1", node: "b", source: "a", epoch: 5 });
    expect(route(loader, prepare(), 0)).toEqual({ _tag: "Show", destination });
    expect(route(loader, prepare({ epoch: 4 }), 0)).toEqual({ _tag: "Show", destination });
  });

  it("to prepare the next attempt abandons the one before it first, and begins when that is over", () => {
    const first = begun();
    expect(route(loader, prepare({ epoch: 6 }), 0)).toMatchObject({
      _tag: "Step",
      destination: first,
      event: { _tag: "Abandon", failure: { code: "fenced" } },
    });
    first.phase = { _tag: "Failed" };
    const second = begun({ epoch: 6 });
    expect(loader.destinations.get(MIGRATION)).toBe(second);
  });

  it("to prepare the same guest for a newer migration abandons the older one first", () => {
    const first = begun();
    expect(route(loader, prepare({ migration: OTHER, epoch: 6 }), 0)).toMatchObject({
      _tag: "Step",
      destination: first,
    });
    first.phase = { _tag: "Failed" };
    expect(begun({ migration: OTHER, epoch: 6 }).epoch).toBe(6);
  });

  it("to prepare that comes late, of an older migration of the guest, does not disturb the newer one", () => {
    const newer = begun({ migration: OTHER, epoch: 6 });
    const routed = route(loader, prepare({ epoch: 5 }), 0);
    expect(newer.failure).toBeNull();
    if (routed._tag !== "Answer") throw new Error(routed._tag);
    expect(routed.report).toMatchObject({
      migration: MIGRATION,
      epoch: 5,
      phase: "failed",
      failure: { code: "fenced" },
    });
    const codec = json(DestinationReport);
    expect(codec.decode(codec.encode(routed.report))).toEqual(routed.report);
    expect([...loader.destinations.values()]).toEqual([newer]);
  });

  it("to prepare another guest disturbs nobody", () => {
    const first = begun();
    const second = begun({ migration: OTHER, guest: "vm2", epoch: 1 });
    expect(loader.destinations.size).toBe(2);
    expect(first.failure ?? second.failure).toBeNull();
  });

  it.each([
    [
      { _tag: "Abandon", ...shared, epoch: 99 as never, failure: FAILURE },
      { _tag: "Abandon", failure: FAILURE },
    ],
    [
      { _tag: "Conclude", ...shared, info: { ...info, status: "completed" } },
      { _tag: "Concluded", failure: null },
    ],
    [
      { _tag: "Conclude", ...shared, info: { ...info, status: "failed", error: FAILURE } },
      { _tag: "Concluded", failure: FAILURE },
    ],
    [
      { _tag: "Conclude", ...shared, info: { ...info, status: "cancelled" } },
      {
        _tag: "Concluded",
        failure: {
          code: "internal",
          actor: "coordinator",
          step: "conclude",
          reason: "the migration ended as cancelled",
        },
      },
    ],
  ] satisfies ReadonlyArray<readonly [DestinationCommand, object]>)(
    "$_tag goes to its destination",
    (command, event) => {
      const destination = begun();
      expect(route(loader, command, 0)).toEqual({ _tag: "Step", destination, event });
    },
  );

  it("to inspect shows it; about a migration that nobody knows it is answered so", () => {
    const inspect: DestinationCommand = { _tag: "Inspect", ...shared };
    const unknown = route(loader, inspect, 0);
    expect(unknown).toMatchObject({
      _tag: "Answer",
      report: { phase: "unknown", epoch: 0, incarnation: loader.incarnation },
    });
    const destination = begun();
    expect(route(loader, inspect, 0)).toEqual({ _tag: "Show", destination });
  });

  it("to abandon an earlier attempt does not end the next", () => {
    const destination = begun({ epoch: 5 });
    const abandon = (epoch: number) =>
      route(loader, { _tag: "Abandon", ...shared, epoch: epoch as never, failure: FAILURE }, 0);
    expect(abandon(4)).toEqual({ _tag: "Ignore" });
    expect(abandon(5)).toMatchObject({ _tag: "Step", destination });
  });

  it("of an old coordinator is refused, and the newest term is kept", () => {
    const destination = begun({ term: 3 });
    expect(route(loader, prepare({ term: 2, epoch: 9 }), 0)._tag).toBe("Refuse");
    expect(route(loader, { _tag: "Abandon", ...shared, term: 2, epoch: 99 as never, failure: FAILURE }, 0)._tag).toBe(
      "Refuse",
    );
    route(loader, { _tag: "Inspect", ...shared, term: 8 }, 0);
    expect(destination.authority.term).toBe(8);
  });

  it.each([
    prepare({ epoch: 9 }),
    { _tag: "Abandon", ...shared, epoch: 5 as never, failure: FAILURE },
    { _tag: "Pause", ...shared, epoch: 5 as never, word: 1 },
    { _tag: "Inspect", ...shared },
    { _tag: "Conclude", ...shared, info },
  ] satisfies ReadonlyArray<DestinationCommand>)(
    "$_tag of another coordinator under the same term, or of another way, is refused and changes nothing",
    (command) => {
      const destination = begun();
      const before = JSON.stringify(destination.authority);
      const refused = (lie: object): string => {
        const routed = route(loader, { ...command, ...lie } as DestinationCommand, 0);
        return routed._tag === "Refuse" ? routed.reason : routed._tag;
      };
      expect(refused({ coordinator: STRANGER })).toContain(`which is coordinator ${COORDINATOR}'s`);
      expect(refused({ source: "c" })).toContain("which goes from a to b here");
      expect(refused({ destination: "c" })).toContain("goes to node c, not here");
      expect(JSON.stringify(destination.authority)).toBe(before);
      expect(loader.destinations.get(MIGRATION)).toBe(destination);
      // The one who won the next term is the next owner, and from then on the only one.
      expect(refused({ coordinator: STRANGER, term: 2 })).not.toContain("coordinator");
      expect(refused({ term: 2 })).toContain(`which is coordinator ${STRANGER}'s`);
    },
  );

  it("is taken from whoever speaks first under the term that a former life of this loader has kept", () => {
    const destination = begun();
    destination.authority.coordinator = null;
    expect(route(loader, { _tag: "Inspect", ...shared, coordinator: STRANGER as never }, 0)._tag).toBe("Show");
    expect(route(loader, { _tag: "Inspect", ...shared }, 0)._tag).toBe("Refuse");
  });
});

describe("how a destination stands", () => {
  const phases: ReadonlyArray<
    readonly [Destination["phase"]["_tag"], DestinationReport["phase"], MigrationInfo["status"]]
  > = [
    ["Preparing", "preparing", "setup"],
    ["Ready", "ready", "active"],
    ["Loading", "loading", "device"],
    ["Committing", "committing", "device"],
    ["Starting", "committing", "device"],
    ["Closing", "running", "completed"],
    ["Running", "running", "completed"],
    ["Discarding", "failed", "failed"],
    ["Failed", "failed", "failed"],
  ];
  it.each(phases)("in %s is reported as %s, and shown as %s", (phase, reported, status) => {
    const destination = begun();
    destination.phase = { _tag: phase } as Destination["phase"];
    expect(reportOf(destination).phase).toBe(reported);
    expect(infoOf(destination, 10).status).toBe(status);
    const codec = json(DestinationReport);
    expect(codec.decode(codec.encode(reportOf(destination)))).toEqual(reportOf(destination));
  });
});
