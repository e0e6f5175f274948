import { expect, it } from "vitest";
import { countPacket, type LaneCounts, listOfLanes } from "./lane-counts.ts";

it("are kept for each purpose and channel, with the lane of the newest packet", () => {
  const counts: LaneCounts = new Map();
  countPacket(counts, "ram", "nats", "godwit.m.x.a.b.ch.1");
  countPacket(counts, "ram", "direct", "godwit.m.x.a.b.ch.1");
  countPacket(counts, "ram", "direct", "godwit.m.x.a.b.ch.12");
  countPacket(counts, "devices", "nats", "godwit.m.x.a.b.dev.1");
  // Pages that are waited for have no channel of their own.
  countPacket(counts, "urgent", "direct", "godwit.m.x.a.b.urgent");
  expect(listOfLanes(counts)).toEqual([
    { purpose: "ram", channel: 1, lane: "direct", nats: 1, direct: 1 },
    { purpose: "ram", channel: 12, lane: "direct", nats: 0, direct: 1 },
    { purpose: "devices", channel: 1, lane: "nats", nats: 1, direct: 0 },
    { purpose: "urgent", channel: 0, lane: "direct", nats: 0, direct: 1 },
  ]);
});

it("do not grow with what a stranger makes up", () => {
  const counts: LaneCounts = new Map();
  for (let channel = 0; channel < 2000; channel++) countPacket(counts, "ram", "nats", `godwit.m.x.a.b.ch.${channel}`);
  for (const word of ["-1", "x", "1e9", "99999999999"]) countPacket(counts, "ram", "nats", `godwit.m.x.a.b.ch.${word}`);
  expect(counts.size).toBe(255);
});
