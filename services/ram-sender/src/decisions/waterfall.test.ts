import type { Waterfall } from "@godwit/protocol";
import { describe, expect, it } from "vitest";
import { reportOf } from "./report.ts";
import { DESTINATION, FAILURE, make, until, Watch } from "./source-watch.conformance.ts";

const running = (watch: Watch, waterfall?: Waterfall): void =>
  watch.happen({
    _tag: "DestinationRunning",
    epoch: watch.source.epoch,
    incarnation: DESTINATION,
    ...(waterfall === undefined ? {} : { waterfall }),
  });

const inSum = ({ parts }: Waterfall): number =>
  parts.reduce((sum, { length, beside }) => sum + (beside ? 0 : length), 0);

const SAID: Waterfall = {
  parts: [
    { part: "read-record", side: "destination", begin: 0, length: 2000 },
    { part: "load-device-state", side: "destination", begin: 2000, length: 9000 },
    { part: "RESUMING -> STOP", side: "destination", begin: 500, length: 800, beside: true, device: "nic0" },
  ],
  total: 11_000,
};

describe("the waterfall of a switchover", () => {
  const switched = (): Watch => {
    const watch = new Watch(make());
    until(watch, "AwaitingCommit");
    watch.now += 15;
    return watch;
  };

  it("adds up to the downtime, with what the destination says placed between the two messages that enclose it", () => {
    const watch = switched();
    running(watch, SAID);
    const { downtime, waterfall } = reportOf(watch.source, watch.now);
    const { parts, total, rest } = waterfall!;
    expect(rest).toBe(4000);
    expect(inSum(waterfall!) + rest!).toBe(total);
    expect(downtime).toBe(total! / 1000);
    const written = parts.find(({ part }) => part === "write-record")!;
    const read = parts.find(({ part }) => part === "read-record")!;
    const told = written.begin + written.length;
    expect(read.begin).toBe(told + rest! / 2);
    expect(parts.map(({ part }) => part)).toEqual([
      "stop",
      "save-device-state",
      "final-sync",
      "write-record",
      "read-record",
      "load-device-state",
      "RESUMING -> STOP",
      ...(parts.some(({ part }) => part === "send") ? ["send"] : []),
    ]);
    expect(parts.find(({ device }) => device === "nic0")!.begin).toBe(read.begin + 500);
  });

  it.each<[string, Waterfall | undefined]>([
    ["has not said", undefined],
    ["has only begun to say", { parts: SAID.parts }],
    ["cannot have taken between the two messages", { ...SAID, total: 16_000 }],
  ])("shows the wait for the destination alone where that is what it %s", (_, said) => {
    const watch = switched();
    running(watch, said);
    const { waterfall } = reportOf(watch.source, watch.now);
    expect(waterfall!.parts.find(({ part }) => part === "destination")!.length).toBeGreaterThanOrEqual(15_000);
    expect(waterfall!.parts.every(({ side }) => side === "source")).toBe(true);
    expect(waterfall!.rest).toBe(0);
    expect(inSum(waterfall!)).toBe(waterfall!.total);
  });

  it("begins when the guest was told to stop: it ran while that was prepared", () => {
    const watch = new Watch(make());
    until(watch, "Stopping");
    const since = watch.now * 1000 + 4000;
    watch.now += 7;
    watch.happen({ _tag: "Paused", since });
    until(watch, "AwaitingCommit");
    running(watch);
    const { waterfall } = reportOf(watch.source, watch.now);
    expect(waterfall!.parts[0]).toMatchObject({ part: "stop", begin: 0, length: 3000 });
    expect(waterfall!.total).toBe(watch.now * 1000 - since);
    expect(inSum(waterfall!)).toBe(waterfall!.total);
  });

  it("keeps what was said first: later reports tell of other times", () => {
    const watch = switched();
    running(watch, SAID);
    const first = reportOf(watch.source, watch.now).waterfall;
    watch.now += 100;
    running(watch, { ...SAID, total: 5000 });
    expect(reportOf(watch.source, watch.now).waterfall).toEqual(first);
  });

  it("is there before the end, with what has ended by then, and without a total", () => {
    const watch = new Watch(make());
    until(watch, "Precopy");
    expect(reportOf(watch.source, watch.now).waterfall).toBeUndefined();
    until(watch, "FinalSync");
    const { downtime, waterfall } = reportOf(watch.source, watch.now);
    expect(downtime).toBeUndefined();
    expect(waterfall!.parts.map(({ part }) => part)).toEqual(["stop", "save-device-state"]);
    expect(waterfall).not.toHaveProperty("total");
  });

  it("of a switchover that was undone tells how long the guest stood still, and of no downtime", () => {
    const watch = switched();
    watch.happen({ _tag: "Abort", failure: FAILURE });
    until(watch, "Ended");
    const { downtime, waterfall } = reportOf(watch.source, watch.now);
    expect(downtime).toBeUndefined();
    const names = waterfall!.parts.filter(({ beside }) => !beside).map(({ part }) => part);
    expect(names.slice(-3)).toEqual(["destination", "take-back", "resume"]);
    expect(inSum(waterfall!)).toBe(waterfall!.total);
  });
});
