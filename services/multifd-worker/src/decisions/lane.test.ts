import type { LaneOffer } from "@godwit/protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Lane } from "./index.ts";

const OFFER: LaneOffer = { addresses: ["10.0.0.7:4"], tls: false, token: "0".repeat(16), secret: "0".repeat(64) };
const REFUSED = { _tag: "Refused", reason: "off there" } as const;
const OPENED = { _tag: "Opened", address: "10.0.0.7:4" } as const;
const BROKE = { _tag: "Ended", reason: "ECONNRESET", quietly: false } as const;
const CLOSED = { _tag: "Ended", reason: "the destination closed it", quietly: true } as const;
const WANTED = { _tag: "Wanted" } as const;
const OFFERED = { _tag: "Offered", offer: OFFER } as const;
const ASK = { _tag: "Ask" };
const byNats = (why: string) => ({ _tag: "Tell", what: "goes by NATS", why });

const opened = (now = 0): Lane.Lane => {
  const lane = Lane.make(now);
  for (const event of [WANTED, OFFERED, OPENED] as const) Lane.step(lane, event, now);
  return lane;
};

describe("a lane", () => {
  it("asks for a connection once, dials what it is offered, and tells that it is open", () => {
    const lane = Lane.make(0);
    expect(Lane.step(lane, WANTED, 0)).toEqual([ASK]);
    expect(Lane.step(lane, WANTED, 1)).toEqual([]);
    expect(Lane.step(lane, OFFERED, 2)).toEqual([{ _tag: "Dial", offer: OFFER }]);
    expect(Lane.step(lane, WANTED, 3)).toEqual([]);
    expect(Lane.step(lane, OPENED, 4)).toEqual([{ _tag: "Tell", what: "goes direct", why: "10.0.0.7:4" }]);
    expect(lane.phase._tag).toBe("Open");
  });

  it("that breaks goes by NATS at once, and tries again after a while, ever longer", () => {
    const lane = opened();
    expect(Lane.step(lane, BROKE, 10)).toEqual([byNats("ECONNRESET")]);
    let now = 10;
    const waits: number[] = [];
    for (let failure = 0; failure < 8; failure++) {
      const begun = now;
      while (Lane.step(lane, WANTED, now).length === 0) now += 100;
      waits.push(now - begun);
      Lane.step(lane, OFFERED, now);
      // Told once, as long as it is the same.
      expect(Lane.step(lane, BROKE, now)).toEqual([]);
    }
    expect(waits.slice(0, 5)).toEqual([500, 1000, 2000, 4000, 8000]);
    expect(waits.at(-1)).toBe(Lane.AGAIN_MS_MAX);
  });

  it("that was good for a while is tried again soon, and tells anew", () => {
    const lane = opened();
    for (let now = Lane.GOOD_MS; now < 10 * Lane.GOOD_MS; now += Lane.GOOD_MS) {
      expect(Lane.step(lane, BROKE, now)).toEqual([byNats("ECONNRESET")]);
      now += Lane.AGAIN_MS;
      expect(Lane.step(lane, WANTED, now)).toEqual([ASK]);
      for (const event of [OFFERED, OPENED] as const) expect(Lane.step(lane, event, now)).toHaveLength(1);
    }
  });

  it("that is refused is asked for again later, and tells each reason once", () => {
    const lane = Lane.make(0);
    Lane.step(lane, WANTED, 0);
    expect(Lane.step(lane, REFUSED, 0)).toEqual([byNats("off there")]);
    expect(Lane.step(lane, WANTED, Lane.AGAIN_MS_MAX - 1)).toEqual([]);
    expect(Lane.step(lane, WANTED, Lane.AGAIN_MS_MAX)).toEqual([ASK]);
    expect(Lane.step(lane, REFUSED, Lane.AGAIN_MS_MAX)).toEqual([]);
  });

  it("that is closed when all was taken tells nothing, until a packet has to go by NATS", () => {
    const lane = opened();
    expect(Lane.step(lane, CLOSED, 10)).toEqual([]);
    expect(Lane.step(lane, WANTED, 11)).toEqual([byNats("the destination closed it")]);
    expect(Lane.step(lane, WANTED, 12)).toEqual([]);
    const other = opened();
    Lane.step(other, CLOSED, 10);
    expect(Lane.step(other, WANTED, 10_000)).toEqual([byNats("the destination closed it"), ASK]);
  });

  it("is idle when nothing was to be sent for long", () => {
    const lane = opened();
    expect(Lane.isIdle(lane, Lane.IDLE_MS)).toBe(false);
    expect(Lane.isIdle(lane, Lane.IDLE_MS + 1)).toBe(true);
    Lane.step(lane, WANTED, Lane.IDLE_MS);
    expect(Lane.isIdle(lane, Lane.IDLE_MS + 1)).toBe(false);
  });

  it("has one question or one connection at a time, whatever comes in whatever order", () => {
    const event = fc.constantFrom<Lane.Event>(WANTED, OFFERED, REFUSED, OPENED, BROKE, CLOSED);
    fc.assert(
      fc.property(fc.array(fc.tuple(event, fc.nat(5000)), { maxLength: 200 }), (events) => {
        const lane = Lane.make(0);
        let [now, asking, dialed] = [0, 0, 0];
        for (const [next, ms] of events) {
          now += ms;
          const before = lane.phase._tag;
          for (const effect of Lane.step(lane, next, now)) {
            if (effect._tag === "Ask") asking++;
            if (effect._tag === "Dial") dialed++;
          }
          const after: string = lane.phase._tag;
          if (before === "Asking" && after !== "Asking") asking--;
          if ((before === "Dialing" || before === "Open") && after === "Broken") dialed--;
          expect([asking, dialed]).toEqual([
            after === "Asking" ? 1 : 0,
            after === "Dialing" || after === "Open" ? 1 : 0,
          ]);
        }
      }),
    );
  });
});
