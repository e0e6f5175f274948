import { describe, expect, it } from "vitest";
import { type Authority, obey, whyNotOurs } from "./authority.ts";

const ROUTE = { migration: "0".repeat(16), source: "a", destination: "b" };
const [OWNER, OTHER] = ["c".repeat(16), "d".repeat(16)];
const said = (change: { coordinator?: string; term?: number; source?: string; destination?: string } = {}) => ({
  ...ROUTE,
  ...{ term: 3, coordinator: OWNER },
  ...change,
});

describe("whose word counts", () => {
  const authority: Authority = { term: 3, coordinator: OWNER };

  it("is the coordinator's of this term, and of a newer one", () => {
    expect(whyNotOurs(authority, ROUTE, said())).toBeNull();
    expect(whyNotOurs(authority, ROUTE, said({ term: 4, coordinator: OTHER }))).toBeNull();
  });

  it.each([
    ["an older term's", said({ term: 2 }), "term 3 is known already"],
    ["another one's under the same term", said({ coordinator: OTHER }), `which is coordinator ${OWNER}'s`],
    ["about another source", said({ source: "x" }), "which goes from a to b here"],
    ["about another destination, even under a newer term", said({ destination: "x", term: 9 }), "from a to x"],
  ])("is not %s", (_what, command, reason) => {
    expect(whyNotOurs(authority, ROUTE, command)).toContain(reason);
  });

  it("is the first one's under a term of which only the number was kept", () => {
    const kept: Authority = { term: 3, coordinator: null };
    expect(whyNotOurs(kept, ROUTE, said({ coordinator: OTHER }))).toBeNull();
    obey(kept, said({ coordinator: OTHER }));
    expect(whyNotOurs(kept, ROUTE, said())).toContain(OTHER);
  });
});
