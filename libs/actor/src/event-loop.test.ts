import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { makeAlarm, makeEventLoop } from "./event-loop.ts";

describe("an event loop", () => {
  it("handles events one at a time and in order, also those that come while one is being handled", () => {
    const seen: string[] = [];
    const dispatch = makeEventLoop<number>((event) => {
      seen.push(`begin ${event}`);
      if (event < 3) dispatch(event + 10);
      seen.push(`end ${event}`);
    });
    for (const event of [1, 2, 3]) dispatch(event);
    expect(seen).toEqual([1, 11, 2, 12, 3].flatMap((event) => [`begin ${event}`, `end ${event}`]));
  });

  it("hands a failure to whoever dispatched, and goes on with the next event", () => {
    const seen: number[] = [];
    const dispatch = makeEventLoop<number>((event) => {
      seen.push(event);
      if (event === 1) dispatch(2);
      if (event === 1) throw new Error("it broke");
    });
    expect(() => dispatch(1)).toThrow("it broke");
    dispatch(3);
    expect(seen).toEqual([1, 2, 3]);
  });

  it("takes events that are falsy like any other", () => {
    const seen: unknown[] = [];
    const dispatch = makeEventLoop<unknown>((event) => seen.push(event));
    for (const event of [0, "", false, null]) dispatch(event);
    expect(seen).toEqual([0, "", false, null]);
  });

  it("does a burst of a hundred thousand in no time, and without a deep stack", () => {
    let left = 100_000;
    const dispatch = makeEventLoop<number>(() => {
      if (--left > 0) dispatch(left);
    });
    dispatch(0);
    expect(left).toBe(0);
  });
});

describe("an alarm", () => {
  beforeEach(() => {
    vi.useFakeTimers({ now: 1_700_000_000_000 });
  });
  afterEach(() => {
    vi.useRealTimers();
  });
  const rung = () => {
    const times: number[] = [];
    const start = Date.now();
    return { times, alarm: makeAlarm(() => times.push(Date.now() - start)), start };
  };

  it("rings once, at the earliest of the times that were asked for", () => {
    const { times, alarm, start } = rung();
    for (const at of [500, 100, 300, 100]) alarm.wakeAt(start + at);
    vi.advanceTimersByTime(1000);
    expect(times).toEqual([100]);
  });

  it("rings at once for a time that has passed, and can be set again while it rings", () => {
    const start = Date.now();
    const times: number[] = [];
    const alarm = makeAlarm(() => {
      times.push(Date.now() - start);
      if (times.length < 3) alarm.wakeAt(Date.now() + 10);
    });
    alarm.wakeAt(start - 5);
    vi.advanceTimersByTime(1000);
    expect(times).toEqual([0, 10, 20]);
  });

  it("does not ring once it was stopped, and works when it is set again", () => {
    const { times, alarm, start } = rung();
    alarm.wakeAt(start + 10);
    alarm.stop();
    vi.advanceTimersByTime(100);
    expect(times).toEqual([]);
    alarm.wakeAt(start + 200);
    vi.advanceTimersByTime(200);
    expect(times).toEqual([200]);
  });

  it("never rings for a time that never comes", () => {
    const { times, alarm } = rung();
    alarm.wakeAt(Number.POSITIVE_INFINITY);
    expect(vi.getTimerCount()).toBe(0);
    expect(times).toEqual([]);
  });

  it("does not ring all the time for one that is months away, which no timer of Node's can wait for", () => {
    const { times, alarm, start } = rung();
    alarm.wakeAt(start + 90 * 24 * 3_600_000);
    vi.advanceTimersByTime(3_600_000);
    expect(times).toEqual([]);
    vi.advanceTimersByTime(90 * 24 * 3_600_000);
    expect(times).toEqual([90 * 24 * 3_600_000]);
  });
});
