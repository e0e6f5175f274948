import { describe, expect, it } from "vitest";
import { allocateOwned, letGo } from "./own-memory.ts";

describe("letting go of a message", () => {
  it("frees memory that is its own, once whoever has given it out is done with it", async () => {
    const message = allocateOwned(1000);
    const data = message.subarray(10, 900);
    letGo(data);
    expect([data.length, message.length]).toEqual([890, 1000]);
    await Promise.resolve();
    expect([data.length, message.length]).toEqual([0, 0]);
    letGo(data);
  });

  it("leaves memory alone that others may have a part of", () => {
    const chunk = Buffer.from("one message and another");
    letGo(chunk.subarray(0, 11));
    expect(chunk.toString()).toBe("one message and another");
  });
});
