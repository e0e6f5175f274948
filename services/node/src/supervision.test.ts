import { describe, expect, it } from "vitest";
import { restartDelayMs } from "./supervision.ts";

describe("an actor that has died is started again", () => {
  const alone = false;
  const others = true;

  it("at once, when nobody else does its work", () => {
    expect(restartDelayMs(0, alone)).toBe(0);
    expect(restartDelayMs(1, alone)).toBe(0);
  });

  it("half a second later, when others of its pool do: its start takes a core that the switchover may need", () => {
    expect(restartDelayMs(0, others)).toBe(500);
    expect(restartDelayMs(1, others)).toBe(500);
  });

  it("later and later when it dies again and again, and at most two seconds later", () => {
    const delays = (work: boolean) => [2, 3, 4, 5, 6, 7, 100, 2000].map((deaths) => restartDelayMs(deaths, work));
    expect(delays(alone)).toEqual([100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    expect(delays(others)).toEqual([500, 500, 500, 800, 1600, 2000, 2000, 2000]);
  });
});
