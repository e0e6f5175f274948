/** Many migrations at once between two hosts: one RAM sender, one loader and their workers have all of them in hand. */
import { describe, expect, it } from "vitest";
import { runMany } from "./many.ts";

const GUESTS = 100;

describe("many migrations at once", () => {
  it(`lose none of ${GUESTS} guests in a storm`, () => {
    expect(runMany(5, GUESTS)).toMatchObject({ guests: GUESTS, violation: null });
  });

  it("are found out when one of them runs twice", () => {
    const { violation } = runMany(1, 5, { broken: ["start without compare-and-set"], verify: false, postcopy: false });
    expect(violation).toMatch(/^(two guests run|the guest runs at the destination, the record says)/);
  });
});
