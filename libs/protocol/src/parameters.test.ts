import * as Schema from "effect/Schema";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Failure } from "./failure.ts";
import {
  PARAMETER_DEFAULTS,
  PARAMETERS,
  type ParameterName,
  Parameters,
  parseParameter,
  proposeParameters,
  tuneParameters,
  wantedLane,
} from "./parameters.ts";

const isFailure = (result: Parameters | Failure): result is Failure => "code" in result;
const table = Object.entries(PARAMETERS) as ReadonlyArray<readonly [ParameterName, (typeof PARAMETERS)[ParameterName]]>;
const names = table.map(([name]) => name);

/** The least and the greatest value, as the operator is told them. */
const RANGES: Readonly<Partial<Record<ParameterName, readonly [number, number]>>> = {
  "downtime-limit": [0, 2_000_000],
  "max-bandwidth": [0, Number.MAX_SAFE_INTEGER],
  "max-postcopy-bandwidth": [0, Number.MAX_SAFE_INTEGER],
  "avail-switchover-bandwidth": [0, Number.MAX_SAFE_INTEGER],
  "postcopy-after-rounds": [0, 1_000_000],
  "multifd-channels": [1, 255],
  "multifd-zlib-level": [0, 9],
  "multifd-zstd-level": [0, 20],
  "migration-deadline": [0, 2_678_400_000],
  "switchover-deadline": [100, 2_678_400_000],
  "max-passes": [0, 1_000_000],
  "stall-timeout": [0, 2_678_400_000],
  "x-migration-max-queued-buffers": [1, 4096],
  "x-migration-max-queued-bytes": [262_144, 1_073_741_824],
};
const numeric = Object.entries(RANGES) as ReadonlyArray<readonly [ParameterName, readonly [number, number]]>;
/** The one of which only some numbers of its range will do. */
const CACHE_SIZE = "xbzrle-cache-size";
const worded = table.filter(([name]) => RANGES[name] === undefined && name !== CACHE_SIZE);
const LIVE: ReadonlyArray<ParameterName> = [
  "downtime-limit",
  "max-bandwidth",
  "max-postcopy-bandwidth",
  "avail-switchover-bandwidth",
  "postcopy-after-rounds",
  "migration-deadline",
  "switchover-deadline",
  "max-passes",
  "stall-timeout",
];

const refusal = (asked: Record<string, unknown>): Failure => {
  const result = proposeParameters(asked);
  if (!isFailure(result)) throw new Error(`${JSON.stringify(asked)} was accepted`);
  return result;
};
const refusedWith = (name: ParameterName, value: unknown): void =>
  expect(refusal({ [name]: value })).toMatchObject({
    code: "invalid-parameter",
    actor: "coordinator",
    // QEMU: "Parameter 'multifd-channels' expects a value between 1 and 255"
    reason: `Parameter '${name}' expects ${PARAMETERS[name].expects}, got ${JSON.stringify(value)}`,
  });

describe("the table of parameters", () => {
  it("has valid defaults, and a word on each", () => {
    expect(proposeParameters({})).toEqual(PARAMETER_DEFAULTS);
    for (const [name, { what, default: value }] of table) {
      expect(what, name).not.toBe("");
      expect(proposeParameters({ [name]: value })).toEqual(PARAMETER_DEFAULTS);
    }
  });
  it("tells the range that it keeps", () => {
    for (const [name, [least, greatest]] of numeric) {
      const shown = greatest === Number.MAX_SAFE_INTEGER ? "2^53-1" : String(greatest);
      expect(PARAMETERS[name].expects).toMatch(new RegExp(`\\b${least} (to|and) ${shown.replace("^", "\\^")}\\b`));
    }
  });
});

describe("a parameter", () => {
  it.each(numeric)("%s keeps within %j", (name, [least, greatest]) => {
    for (const value of [least, greatest])
      expect(proposeParameters({ [name]: value })).toMatchObject({ [name]: value });
    for (const value of [least - 1, greatest + 1, least + 0.5, -1e308, 1e308]) refusedWith(name, value);
  });
  it.each(numeric)("%s is no text, no truth value, no list and not nothing", (name) => {
    for (const value of ["1", "", true, null, [], {}, [1]]) refusedWith(name, value);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, undefined])
      expect(refusal({ [name]: value }).code).toBe("invalid-parameter");
  });
  it.each(worded)("%s takes exactly the words it tells", (name, { expects }) => {
    const words = expects.replace("one of ", "").split(", ");
    expect(words.length).toBeGreaterThan(1);
    for (const word of words) {
      expect(proposeParameters({ [name]: word })).toMatchObject({ [name]: word });
      refusedWith(name, word.toUpperCase());
    }
    for (const value of ["", "of", 0, null, true, [words[0]]]) refusedWith(name, value);
  });
  it("for the cache of sent pages is a power of two, from a page to 8 TiB", () => {
    for (const value of [4096, 64 * 1024 ** 2, 8 * 1024 ** 4])
      expect(proposeParameters({ [CACHE_SIZE]: value })).toMatchObject({ [CACHE_SIZE]: value });
    for (const value of [0, 1, 2048, 4097, 12_288, 16 * 1024 ** 4, -4096, 4096.5, "4096", null])
      refusedWith(CACHE_SIZE, value);
  });
  it("that nobody knows is refused by its name, whatever its prototype knows", () => {
    for (const name of ["downtime_limit", "Downtime-limit", "", "toString", "constructor", "announce-max"]) {
      expect(refusal({ [name]: 1 })).toMatchObject({
        code: "unknown-parameter",
        reason: `Invalid parameter '${name}'`,
      });
    }
    expect(refusal(JSON.parse('{"__proto__":{"downtime-limit":1}}')).code).toBe("unknown-parameter");
  });
});

const validOf = (name: ParameterName): fc.Arbitrary<number | string> => {
  const range = RANGES[name];
  if (name === CACHE_SIZE) return fc.integer({ min: 12, max: 43 }).map((log) => 2 ** log);
  if (range !== undefined) return fc.integer({ min: range[0], max: Math.min(range[1], 2 ** 31) });
  return fc.constantFrom(...PARAMETERS[name].expects.replace("one of ", "").split(", "));
};
const valid = fc.record(Object.fromEntries(names.map((name) => [name, validOf(name)])), { requiredKeys: [] });

describe("parameters", () => {
  it("are the defaults with what was asked on top, whatever the order it was asked in", () => {
    fc.assert(
      fc.property(valid, (asked) => {
        const reversed = Object.fromEntries(Object.entries(asked).reverse());
        expect(proposeParameters(asked)).toEqual({ ...PARAMETER_DEFAULTS, ...asked });
        expect(proposeParameters(reversed)).toEqual(proposeParameters(asked));
      }),
    );
  });
  it("of a running migration change where they are live; one that is frozen refuses all that was asked", () => {
    fc.assert(
      fc.property(valid, valid, (first, asked) => {
        const current = proposeParameters(first) as Parameters;
        const result = tuneParameters(current, asked);
        const frozen = Object.keys(asked).filter((name) => !LIVE.includes(name as ParameterName));
        if (frozen.length === 0) return expect(result).toEqual({ ...current, ...asked });
        if (!isFailure(result)) throw new Error("a frozen parameter changed");
        expect(result.code).toBe("wrong-state");
        expect(result.reason).toBe(`Parameter '${frozen[0]}' cannot change while a migration runs`);
      }),
    );
  });
  it.each(names)("say truly whether %s is live", (name) => {
    expect(PARAMETERS[name].live).toBe(LIVE.includes(name));
  });
  it("of a running migration are checked like new ones", () => {
    expect(tuneParameters(PARAMETER_DEFAULTS, { "downtime-limit": -1 })).toMatchObject({ code: "invalid-parameter" });
    expect(tuneParameters(PARAMETER_DEFAULTS, { nonsense: 1 })).toMatchObject({ code: "unknown-parameter" });
  });
});

describe("a parameter from a command line", () => {
  it("is a number where one is wanted", () => {
    expect(parseParameter("downtime-limit", "300")).toBe(300);
    expect(parseParameter("downtime-limit", "-1")).toBe(-1);
    expect(parseParameter("multifd-compression", "zstd")).toBe("zstd");
  });
  it("stays the text it is where it is no number, so that the refusal shows what was typed", () => {
    for (const text of ["", "300ms", "1e5", "0x10", " 3", "+5", "NaN", "Infinity", "1.", "--1"]) {
      expect(parseParameter("downtime-limit", text)).toBe(text);
      refusedWith("downtime-limit", text);
    }
    for (const name of ["nonsense", "constructor", "__proto__"]) expect(parseParameter(name, "5")).toBe("5");
  });
  it("comes back as it was shown", () => {
    fc.assert(
      fc.property(valid, (asked) => {
        for (const [name, value] of Object.entries(asked)) expect(parseParameter(name, String(value))).toBe(value);
      }),
    );
  });
});

describe("parameters that were stored before there were lanes", () => {
  it("are those of a migration through NATS", () => {
    const { lane, ...stored } = PARAMETER_DEFAULTS;
    expect(lane).toBe("nats");
    expect(Schema.decodeUnknownSync(Parameters)(stored)).toEqual(PARAMETER_DEFAULTS);
    expect(
      (["nats", "auto", "direct"] as const).map((each) => wantedLane({ ...PARAMETER_DEFAULTS, lane: each })),
    ).toEqual(["nats", "direct", "direct"]);
  });
});
