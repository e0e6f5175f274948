import * as Effect from "effect/Effect";
import { assert, describe, it } from "vitest";
import { command } from "./command.ts";
import { count, durationIfGiven, flag, list, size, text } from "./option.ts";
import { parseLine, variableOf, wantsJson } from "./parse.ts";
import { UsageError } from "./usage-error.ts";

const trial = command({
  operands: { usage: "GUEST", min: 1, max: 1 },
  options: {
    memory: size("64MiB", ""),
    workers: count(4, 1, 8, ""),
    "stop-after": durationIfGiven("never", ""),
    name: text("NAME", "", { variable: "GODWIT_NODE" }),
    set: list("NAME=VALUE", ""),
    fast: flag(""),
  },
  run: () => Effect.die("not run"),
});
const parse = (words: ReadonlyArray<string>, environment: Record<string, string> = {}) =>
  parseLine("trial", trial, words, environment);
const refusal = (words: ReadonlyArray<string>, environment: Record<string, string> = {}): string => {
  try {
    parse(words, environment);
  } catch (error) {
    assert.instanceOf(error, UsageError);
    return (error as UsageError).message;
  }
  return assert.fail("it was accepted");
};

describe("the line of a command", () => {
  it("gives each option its value or its default", () => {
    assert.deepStrictEqual(parse(["vm1"]), {
      values: {
        memory: 64 * 1024 ** 2,
        workers: 4,
        "stop-after": null,
        name: null,
        set: [],
        fast: false,
        json: false,
        help: false,
      },
      operands: ["vm1"],
      help: false,
    });
    const { values } = parse(["--memory=1GiB", "--stop-after", "2s", "vm1", "--set", "a=1", "--fast", "--set", "b=2"]);
    assert.deepInclude(values, { memory: 1024 ** 3, "stop-after": 2000, fast: true, set: ["a=1", "b=2"] });
  });

  it("takes the last one of an option that was given twice", () => {
    assert.deepInclude(parse(["vm1", "--workers", "1", "--workers", "2"]).values, { workers: 2 });
  });

  it("takes from the environment what is not on it", () => {
    const environment = {
      GODWIT_MEMORY: "1GiB",
      GODWIT_SET: "a=1  b=2",
      GODWIT_FAST: "yes",
      GODWIT_NODE: "n",
      GODWIT_WORKERS: "",
    };
    const { values } = parse(["vm1", "--memory", "2GiB"], environment);
    assert.deepInclude(values, { memory: 2 * 1024 ** 3, set: ["a=1", "b=2"], fast: true, name: "n", workers: 4 });
    assert.deepInclude(parse(["vm1"], { GODWIT_FAST: "0" }).values, { fast: false });
  });

  it("names what is wrong by the word that the operator wrote", () => {
    assert.include(refusal(["vm1", "--memory", "much"]), '--memory: "much" is not a size');
    assert.include(refusal(["vm1"], { GODWIT_MEMORY: "much" }), 'GODWIT_MEMORY: "much"');
    assert.include(refusal(["vm1", "--workers", "9"]), '--workers is "9", not a whole number from 1 to 8');
    assert.include(refusal(["vm1"], { GODWIT_FAST: "perhaps" }), "GODWIT_FAST");
    assert.include(refusal(["vm1", "--sped"]), "'--sped'");
    assert.include(refusal(["vm1", "--memory"]), "--memory");
    assert.include(refusal([]), "godwit trial GUEST");
    assert.include(refusal(["vm1", "vm2"]), '"vm2" is too much');
  });

  it("asks for help whatever else stands there", () => {
    assert.isTrue(parse(["--help"]).help);
    assert.isTrue(parse(["-h", "--workers", "99"]).help);
  });

  it("is known to want JSON before it is understood", () => {
    assert.isTrue(wantsJson(["x", "--nonsense", "--json"], {}));
    assert.isTrue(wantsJson([], { GODWIT_JSON: "1" }));
    assert.isFalse(wantsJson(["x", "--", "--json"], {}));
    assert.isFalse(wantsJson(["x"], { GODWIT_JSON: "off" }));
  });

  it("has a variable for each option", () => {
    assert.strictEqual(variableOf("stop-after", flag("")), "GODWIT_STOP_AFTER");
  });
});
