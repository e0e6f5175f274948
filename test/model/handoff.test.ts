// The hand-off, checked in every order of events that the bounds allow; README.md beside this file says what that means.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { assert, describe, it } from "vitest";
import { type Bounds, BREAKAGES, SMALLEST } from "./breakages.ts";
import { missingPrograms, parse, type Verdict, verify } from "./spin.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const MODEL = fileURLToPath(new URL("handoff.pml", import.meta.url));
const readme = readFileSync(new URL("README.md", import.meta.url), "utf8");
const promela = readFileSync(MODEL, "utf8");

const missing = missingPrograms();
const because = missing.length === 0 ? "" : ` (skipped: no ${missing.join(" and no ")} in PATH)`;
/** A busy machine needs ten times what an idle one does. */
const PATIENCE_MS = 300_000;

/** All that goes wrong at once. `npm run model` lets the guest write twice, which takes four times as long. */
const BOUNDS: Bounds = {
  ATTEMPTS: 2,
  ROUNDS: 3,
  WRITES: process.env["GODWIT_MODEL"] === "full" ? 2 : 1,
  SENDER_DEATHS: 1,
  LOADER_DEATHS: 1,
  FENCINGS: 1,
  STALE_READS: 1,
};
/** Fewer would mean that the model has lost some of its life. */
const STATES_MIN = 1_000_000;

/** `seen` of the model: what happened on the way to a guest that runs at the destination. */
const SEEN = { resumedSession: 1, lateLanding: 2, senderDeath: 4, fencing: 8 };

const summary = (what: string, { states, depth, seconds, violated }: Verdict): void =>
  console.log(
    `model: ${what}: ${states} states, depth ${depth}, ${seconds.toFixed(1)} s, ${violated ?? "nothing"} violated`,
  );

/** Rows of the README's table under `heading`, cell by cell, without the backticks. */
const rows = (heading: string): ReadonlyArray<ReadonlyArray<string>> => {
  const section = readme.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? "";
  return section
    .split("\n")
    .filter((line) => line.startsWith("|"))
    .slice(2)
    .map((line) =>
      line
        .slice(1, -1)
        .split("|")
        .map((cell) => cell.trim().replaceAll("`", "")),
    );
};

describe.skipIf(missing.length > 0)(`the model of the hand-off${because}`, () => {
  it(
    "holds in every order of events",
    async () => {
      const verdict = await verify(MODEL, BOUNDS, "for a long search");
      summary("exhaustive", verdict);
      assert.isNull(verdict.violated, verdict.output);
      assert.isTrue(verdict.exhaustive, verdict.output);
      assert.isAbove(verdict.states, STATES_MIN);
    },
    PATIENCE_MS,
  );

  it(
    "holds without its cuts: what is forgotten to save states could do no harm",
    async () => {
      const bounds = { ...SMALLEST, ATTEMPTS: 2, ROUNDS: 2, SENDER_DEATHS: 1 };
      const verdict = await verify(MODEL, { ...bounds, UNCUT: 1 }, "no");
      summary("without cuts", verdict);
      assert.isNull(verdict.violated, verdict.output);
      assert.isTrue(verdict.exhaustive, verdict.output);
    },
    PATIENCE_MS,
  );

  it.each([
    ["the sender died, the loader's successor resumed the session, a dead actor's write landed late", 7],
    ["all that, and a coordinator fenced the source off", 15],
  ])(
    "completes although %s",
    async (_story, reach) => {
      assert.strictEqual(reach & ~Object.values(SEEN).reduce((sum, bit) => sum | bit), 0);
      const verdict = await verify(MODEL, { ...BOUNDS, ROUNDS: 2, WRITES: 1, REACH: reach }, "no");
      assert.strictEqual(verdict.violated, `((seen&${reach})!=${reach})`, verdict.output);
    },
    PATIENCE_MS,
  );

  it.each(BREAKAGES)(
    "breaks $breaks with $flag",
    async ({ flag, breaks, bounds }) => {
      const verdict = await verify(MODEL, { ...SMALLEST, ...bounds, [flag]: 1 }, "no");
      summary(flag, verdict);
      assert.strictEqual(verdict.violated, breaks, verdict.output);
    },
    PATIENCE_MS,
  );
});

describe("the model's documents", () => {
  it("name, for each assumption, code that exists", () => {
    const assumptions = rows("Assumptions");
    assert.isAbove(assumptions.length, 15);
    for (const [assumption = "", file = "", identifiers = ""] of assumptions) {
      const path = join(ROOT, file);
      assert.isTrue(existsSync(path), `${file} does not exist; it should uphold: ${assumption}`);
      const text = readFileSync(path, "utf8");
      for (const identifier of identifiers.split(", ")) {
        const word = new RegExp(`(?<![\\w$])${identifier}(?![\\w$])`);
        assert.match(text, word, `${file} has no ${identifier}; it should uphold: ${assumption}`);
      }
    }
  });

  it("list every breakage with the property that it breaks", () => {
    const listed = rows("Breakages").map(([flag, property]) => `${flag} ${property}`);
    assert.deepStrictEqual(
      listed,
      BREAKAGES.map(({ flag, breaks }) => `${flag} ${breaks}`),
    );
    for (const { flag } of BREAKAGES) assert.match(promela, new RegExp(`\\b${flag}\\b`));
  });
});

describe("reading what a search said", () => {
  const COMPLETE =
    "Full statespace search for:\nState-vector 116 byte, depth reached 268, errors: 0\n  5046250 states, stored";

  it("takes it for exhaustive only when nothing was left out", () => {
    assert.deepInclude(parse(COMPLETE, 1), { exhaustive: true, states: 5_046_250, depth: 268, violated: null });
    assert.isFalse(parse(`error: max search depth too small\n${COMPLETE}`, 1).exhaustive);
    assert.isFalse(parse(`pan: reached -DMEMLIM bound\n${COMPLETE}`, 1).exhaustive);
    assert.isFalse(parse(`Warning: Search not completed\n${COMPLETE}`, 1).exhaustive);
    assert.isFalse(parse(COMPLETE.replace("Full", "Bit"), 1).exhaustive);
    assert.isFalse(parse("", 1).exhaustive);
  });

  it("names the property that was broken", () => {
    assert.strictEqual(
      parse("pan:1: assertion violated memory_is_equal (at depth 74)\n", 1).violated,
      "memory_is_equal",
    );
    assert.strictEqual(parse("pan:1: invalid end state (at depth 7)\n", 1).violated, "invalid end state");
  });
});
