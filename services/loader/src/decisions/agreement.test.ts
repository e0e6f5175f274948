import { DestinationReport, json, type Offer, PROTOCOL_VERSION } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { differences, type Present } from "./agreement.ts";

const block = fc.record({
  name: fc.constantFrom("ram0", "ram1", "vga", "rom"),
  lengthBytes: fc.constantFrom(4096, 8192, 1024 ** 3),
  hostPageBytes: fc.constantFrom(4096, 2 * 1024 ** 2),
});
const blocks = fc.uniqueArray(block, { selector: ({ name }) => name, maxLength: 4 });
const device = fc.record({
  name: fc.constantFrom("vfio0", "vfio1"),
  provider: fc.constantFrom("kernel" as const, "vfio-user" as const),
});
const devices = fc.uniqueArray(device, { selector: ({ name }) => name, maxLength: 2 });
const present: fc.Arbitrary<Present> = fc.record({
  driver: fc.constantFrom("builtin", "qemu"),
  machine: fc.constantFrom("pc-10.0", "pc-9.2"),
  blocks,
  devices,
});
const offerOf = (side: Present): Offer => ({
  version: PROTOCOL_VERSION,
  driver: side.driver as Offer["driver"],
  machine: side.machine,
  hypervisor: "10.0.2",
  running: true,
  blocks: side.blocks.map((each) => ({
    name: each.name,
    "length-bytes": each.lengthBytes,
    "page-size": each.hostPageBytes,
  })),
  devices: side.devices.map(({ name, provider }) => ({
    device: name,
    provider: provider as "kernel",
    p2p: true,
    "pre-copy": true,
    "dirty-logging": false,
  })),
});

describe("two sides", () => {
  it("that are alike agree, in whatever order their blocks stand, and whatever hypervisor version they run", () => {
    fc.assert(
      fc.property(present, (side) => {
        const other = { ...side, blocks: [...side.blocks].reverse() };
        expect(differences({ ...offerOf(side), hypervisor: "another", running: false }, other)).toEqual([]);
      }),
    );
  });

  it("agree only when driver, machine and every block are alike; each difference is listed once, with both values", () => {
    fc.assert(
      fc.property(present, present, (yours, mine) => {
        const found = differences(offerOf(yours), mine);
        const sorted = (named: ReadonlyArray<{ readonly name: string }>) =>
          JSON.stringify([...named].sort((a, b) => (a.name < b.name ? -1 : 1)));
        const alike =
          yours.driver === mine.driver &&
          yours.machine === mine.machine &&
          sorted(yours.blocks) === sorted(mine.blocks) &&
          sorted(yours.devices) === sorted(mine.devices);
        expect(found.length === 0).toBe(alike);
        expect(new Set(found.map(({ what }) => what)).size).toBe(found.length);
        for (const { what, mine: ours, yours: theirs } of found) {
          expect(what).not.toBe("");
          expect(ours).not.toBe(theirs);
        }
      }),
    );
  });

  it("of another protocol version compare nothing else: it may mean something else", () => {
    fc.assert(
      fc.property(present, present, fc.integer({ min: 0, max: 9 }), (yours, mine, version) => {
        fc.pre(version !== PROTOCOL_VERSION);
        expect(differences({ ...offerOf(yours), version }, mine)).toEqual([
          { what: "protocol version", mine: String(PROTOCOL_VERSION), yours: String(version) },
        ]);
      }),
    );
  });

  it("do not agree on an offer that names a block twice: packets name blocks by their place in it", () => {
    const side: Present = {
      driver: "qemu",
      devices: [],
      machine: "m",
      blocks: [{ name: "ram", lengthBytes: 4096, hostPageBytes: 4096 }],
    };
    const offer = offerOf(side);
    const found = differences({ ...offer, blocks: [...offer.blocks, ...offer.blocks] }, side);
    expect(found).toEqual([{ what: "RAMBlock ram", mine: "once", yours: "twice or more" }]);
  });

  it("that differ in everything still fit one report", () => {
    const many = (prefix: string): Present => ({
      devices: [],
      driver: "qemu",
      machine: prefix,
      blocks: Array.from({ length: 512 }, (_, index) => ({
        name: prefix + String(index).padStart(254, "x"),
        lengthBytes: 4096,
        hostPageBytes: 4096,
      })),
    });
    const found = differences(offerOf(many("a")), many("b"));
    const codec = json(DestinationReport);
    const report = {
      migration: "0".repeat(16) as never,
      term: 1,
      incarnation: "0".repeat(16) as never,
      phase: "failed",
      epoch: 1,
      life: 0,
      round: 0,
      "dropped-packets": 0,
      failure: { code: "incompatible", actor: "loader", step: "compare", reason: "differ", differences: found },
    } as const;
    expect(codec.decode(codec.encode(report))).toEqual(report);
    expect(found.at(-1)).toMatchObject({ what: expect.stringMatching(/^9\d\d further differences$/) });
  });
});
