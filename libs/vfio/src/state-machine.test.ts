import { assert, describe, it } from "vitest";
import {
  arcName,
  arcsOf,
  DEVICE_STATES,
  type DeviceState,
  hasState,
  type MigrationFeatures,
  pathOf,
  statesOf,
} from "./state-machine.ts";

const FEATURE_SETS: ReadonlyArray<MigrationFeatures> = [
  { stopCopy: true, p2p: false, preCopy: false },
  { stopCopy: true, p2p: true, preCopy: false },
  { stopCopy: true, p2p: false, preCopy: true },
  { stopCopy: true, p2p: true, preCopy: true },
];
const ALL = FEATURE_SETS[3] as MigrationFeatures;
const named = ({ p2p, preCopy }: MigrationFeatures): string =>
  `${p2p ? "with" : "without"} P2P, ${preCopy ? "with" : "without"} PRE_COPY`;

/** What a SET was seen to do on Linux 6.12: ok, `+fd` a new descriptor, `same` no new one while the old goes on, `-` EINVAL. */
const MEASURED_COLUMNS: ReadonlyArray<DeviceState> = [
  "STOP",
  "RUNNING",
  "STOP_COPY",
  "RESUMING",
  "RUNNING_P2P",
  "PRE_COPY",
  "PRE_COPY_P2P",
];
const FROM_RUNNING = ["ok", "ok", "+fd", "+fd", "ok", "+fd", "+fd"];
const FROM_PRE_COPY = ["ok", "ok", "same", "+fd", "ok", "same", "same"];
const MEASURED: Readonly<Record<string, ReadonlyArray<string>>> = {
  STOP: FROM_RUNNING,
  RUNNING: FROM_RUNNING,
  RUNNING_P2P: FROM_RUNNING,
  STOP_COPY: ["ok", "ok", "same", "+fd", "ok", "-", "-"],
  RESUMING: ["ok", "ok", "+fd", "same", "ok", "+fd", "+fd"],
  PRE_COPY: FROM_PRE_COPY,
  PRE_COPY_P2P: FROM_PRE_COPY,
};
const SEEN_AS: Readonly<Record<string, string>> = {
  "opens-saving": "+fd",
  "opens-resuming": "+fd",
  keeps: "same",
  closes: "ok",
  none: "ok",
};

describe("a SET", () => {
  it.each(FEATURE_SETS)("does for every pair of states what was measured: %o", (features) => {
    for (const from of DEVICE_STATES) {
      for (const to of DEVICE_STATES) {
        const path = pathOf(from, to, features);
        const seen = path._tag === "Refused" ? "-" : SEEN_AS[path.stream];
        const known = hasState(from, features) && hasState(to, features);
        const measured = known ? MEASURED[from]?.[MEASURED_COLUMNS.indexOf(to)] : undefined;
        assert.strictEqual(seen, measured ?? "-", `${from} -> ${to}, ${named(features)}`);
        if (path._tag === "Refused") assert.strictEqual(path.errno, "EINVAL");
      }
    }
  });

  it.each(FEATURE_SETS)(
    "walks from where it is to where it shall be, over states that the device has: %o",
    (features) => {
      for (const from of statesOf(features)) {
        for (const to of statesOf(features)) {
          const path = pathOf(from, to, features);
          if (path._tag === "Refused") continue;
          let at = from;
          for (const arc of path.arcs) {
            assert.strictEqual(arc.from, at);
            assert.isTrue(hasState(arc.to, features), `${arcName(arc)} on the way from ${from} to ${to}`);
            at = arc.to;
          }
          assert.strictEqual(at, to);
          assert.isAtMost(path.arcs.length, 4, "the kernel's longest way has four arcs");
        }
      }
    },
  );

  it("is refused with ENOTTY by a device that cannot be migrated", () => {
    const path = pathOf("RUNNING", "STOP", { stopCopy: false, p2p: true, preCopy: true });
    assert.deepInclude(path, { _tag: "Refused", errno: "ENOTTY" });
  });

  it("leads nowhere from ERROR, and never to ERROR", () => {
    for (const state of DEVICE_STATES) {
      assert.strictEqual(pathOf("ERROR", state, ALL)._tag, "Refused");
      assert.strictEqual(pathOf(state, "ERROR", ALL)._tag, "Refused");
    }
  });
});

describe("the arcs", () => {
  /** Those that the comment above `vfio_from_fsm_table` asks of a driver. */
  const BASE = ["RESUMING->STOP", "STOP->RESUMING", "STOP->STOP_COPY", "STOP_COPY->STOP"];
  const WITHOUT_P2P = ["RUNNING->STOP", "STOP->RUNNING"];
  const WITH_P2P = ["RUNNING->RUNNING_P2P", "RUNNING_P2P->RUNNING", "RUNNING_P2P->STOP", "STOP->RUNNING_P2P"];
  const WITH_PRE_COPY = ["RUNNING->PRE_COPY", "PRE_COPY->RUNNING"];
  const WITH_BOTH = [
    "PRE_COPY->PRE_COPY_P2P",
    "PRE_COPY_P2P->PRE_COPY",
    "PRE_COPY_P2P->RUNNING_P2P",
    "PRE_COPY_P2P->STOP_COPY",
    "RUNNING_P2P->PRE_COPY_P2P",
  ];

  it.each(FEATURE_SETS)("are those that the kernel asks of a driver: %o", (features) => {
    const { p2p, preCopy } = features;
    const expected = [
      ...BASE,
      ...(p2p ? WITH_P2P : WITHOUT_P2P),
      ...(preCopy ? WITH_PRE_COPY : []),
      ...(preCopy && p2p ? WITH_BOTH : []),
      ...(preCopy && !p2p ? ["PRE_COPY->STOP_COPY"] : []),
    ];
    assert.sameMembers(arcsOf(features).map(arcName), expected);
  });

  it.each([
    ["PRE_COPY", "STOP_COPY", "PRE_COPY->PRE_COPY_P2P PRE_COPY_P2P->STOP_COPY"],
    ["RUNNING", "STOP_COPY", "RUNNING->RUNNING_P2P RUNNING_P2P->STOP STOP->STOP_COPY"],
    ["PRE_COPY", "RESUMING", "PRE_COPY->RUNNING RUNNING->RUNNING_P2P RUNNING_P2P->STOP STOP->RESUMING"],
    ["STOP", "PRE_COPY", "STOP->RUNNING_P2P RUNNING_P2P->RUNNING RUNNING->PRE_COPY"],
    ["RUNNING", "RUNNING", ""],
  ] as const)("from %s to %s", (from, to, arcs) => {
    const path = pathOf(from, to, ALL);
    assert.strictEqual(path._tag === "Path" ? path.arcs.map(arcName).join(" ") : path.reason, arcs);
  });

  it("open a stream, keep it or close it", () => {
    const streams = Object.fromEntries(arcsOf(ALL).map((arc) => [arcName(arc), arc.stream]));
    assert.include(streams, {
      "RUNNING->PRE_COPY": "opens-saving",
      "RUNNING_P2P->PRE_COPY_P2P": "opens-saving",
      "STOP->STOP_COPY": "opens-saving",
      "STOP->RESUMING": "opens-resuming",
      "PRE_COPY_P2P->STOP_COPY": "keeps",
      "PRE_COPY->RUNNING": "closes",
      "STOP_COPY->STOP": "closes",
      "RESUMING->STOP": "closes",
      "RUNNING_P2P->STOP": "none",
    });
  });
});
