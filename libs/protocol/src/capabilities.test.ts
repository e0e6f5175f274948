import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CAPABILITIES, type Capabilities, proposeCapabilities } from "./capabilities.ts";
import type { Failure } from "./failure.ts";

interface Entry {
  readonly default: boolean;
  readonly supported: boolean;
  readonly requires?: ReadonlyArray<string>;
  readonly conflicts?: ReadonlyArray<string>;
  readonly what: string;
}
const table = Object.entries(CAPABILITIES as Readonly<Record<string, Entry>>);
const names = table.map(([name]) => name);
/** Those that stand in every set, and cannot be switched off. */
const ALWAYS_ON = ["multifd", "return-path"];

const isFailure = (result: Capabilities | Failure): result is Failure => "code" in result;
const refusal = (asked: Record<string, boolean>): Failure => {
  const result = proposeCapabilities(asked);
  if (!isFailure(result)) throw new Error(`${JSON.stringify(asked)} was accepted`);
  return result;
};
const pairs = (of: "conflicts" | "requires") =>
  table.flatMap(([name, c]) => (c[of] ?? []).map((other) => [name, other]));

describe("the table of capabilities", () => {
  it("names only capabilities that exist, and says what each is for", () => {
    for (const [name, other] of [...pairs("conflicts"), ...pairs("requires")]) {
      expect(names).toContain(other);
      expect(other).not.toBe(name);
    }
    for (const [, { what }] of table) expect(what).not.toBe("");
  });
  it("holds each conflict at both of its ends", () => {
    const all = pairs("conflicts").map(([name, other]) => `${name} ${other}`);
    for (const [name, other] of pairs("conflicts")) expect(all).toContain(`${other} ${name}`);
  });
  it("has defaults that agree with each other, and are supported", () => {
    const defaults = Object.fromEntries(table.map(([name, c]) => [name, c.default]));
    expect(proposeCapabilities({})).toEqual(defaults);
    for (const [name, c] of table) if (c.default) expect(c.supported, name).toBe(true);
  });
  it("compares pages by default for guests that are there to be tried, and for others when it is asked for", () => {
    expect(proposeCapabilities({}, "builtin")).toMatchObject({ verify: true });
    expect(proposeCapabilities({}, "qemu")).toMatchObject({ verify: false });
    expect(proposeCapabilities({ verify: false }, "builtin")).toMatchObject({ verify: false });
    expect(proposeCapabilities({ verify: true }, "qemu")).toMatchObject({ verify: true });
  });
});

describe("proposed capabilities", () => {
  it.each(pairs("conflicts"))("%s and %s refuse each other, in QEMU's words", (name, other) => {
    const on = Object.fromEntries([name, other].map((each) => [each, true]));
    // What either requires must not be what refuses it.
    const required = [name, other].flatMap((each) => table.find(([n]) => n === each)![1].requires ?? []);
    for (const need of required) on[need!] = true;
    const { code, reason } = refusal(on);
    expect(code).toBe("capability-conflict");
    expect(reason).toMatch(/^Capability '[a-z-]+' is not compatible with '[a-z-]+'$/);
  });

  it.each(pairs("requires"))("%s without %s is refused, in QEMU's words", (name, other) => {
    const { code, reason } = refusal({ [name!]: true, [other!]: false });
    expect(code).toBe("capability-conflict");
    expect(reason).toBe(`Capability '${name}' requires capability '${other}'`);
  });

  it.each(table.filter(([, c]) => !c.supported).map(([name]) => name))("%s is known, and not supported", (name) => {
    const asked: Record<string, boolean> = { [name]: true };
    const required = table.find(([n]) => n === name)![1].requires ?? [];
    for (const need of required) asked[need] = true;
    const { code, reason } = refusal(asked);
    expect(["not-supported", "capability-conflict"]).toContain(code);
    expect([name, ...required].some((each) => reason.includes(`'${each}'`))).toBe(true);
  });

  it.each(table.filter(([, c]) => c.supported).map(([name]) => name))("%s can be switched on", (name) => {
    const transport = name === "mapped-ram" ? "file" : "network";
    const asked = Object.fromEntries(
      [name, ...(table.find(([n]) => n === name)![1].requires ?? [])].map((n) => [n, true]),
    );
    expect(proposeCapabilities(asked, null, transport)).toMatchObject(asked);
  });

  it("have mapped-ram in a file, always and nowhere else", () => {
    expect(proposeCapabilities({}, null, "file")).toMatchObject({ "mapped-ram": true });
    expect(proposeCapabilities({ "mapped-ram": false }, null, "file")).toMatchObject({ code: "not-supported" });
    const { reason } = refusal({ "mapped-ram": true });
    expect(reason).toContain("Migration requires seekable transport (e.g. file)");
  });

  it.each(names)("%s can be switched off, or says why not", (name) => {
    const result = proposeCapabilities({ [name]: false });
    if (!ALWAYS_ON.includes(name)) return expect(result).toMatchObject({ [name]: false });
    expect(isFailure(result) && result.code).toBe("not-supported");
    expect(isFailure(result) && result.reason).toContain(`'${name}'`);
  });

  it("with an unknown name are refused, whatever its prototype knows", () => {
    for (const name of ["Multifd", "multi-fd", "", "toString", "constructor", "hasOwnProperty", "block"]) {
      expect(refusal({ [name]: true })).toMatchObject({
        code: "unknown-capability",
        reason: `Invalid capability '${name}'`,
      });
    }
    expect(refusal(JSON.parse('{"__proto__":true}')).code).toBe("unknown-capability");
  });

  it("are the whole table, agree with each other, and are what was asked, or are refused with a known name", () => {
    const asked = fc.dictionary(fc.constantFrom(...names), fc.boolean(), { noNullPrototype: true });
    fc.assert(
      fc.property(asked, (set) => {
        const result = proposeCapabilities(set);
        if (isFailure(result)) {
          expect(names.some((name) => result.reason.includes(`'${name}'`))).toBe(true);
          return;
        }
        expect(result).toMatchObject(set);
        expect(Object.keys(result).sort()).toEqual([...names].sort());
        const on = (name: string) => result[name as keyof Capabilities];
        for (const [name, c] of table.filter(([each]) => on(each))) {
          expect(c.supported, name).toBe(true);
          expect(c.requires?.every(on) ?? true, name).toBe(true);
          expect(c.conflicts?.some(on) ?? false, name).toBe(false);
        }
      }),
    );
  });
});
