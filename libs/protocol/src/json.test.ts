import * as Arbitrary from "effect/Arbitrary";
import * as Effect from "effect/Effect";
import type * as Schema from "effect/Schema";
import { describe, expect, it } from "vitest";
import { isMalformed, json } from "./json.ts";
import { BLOCK_BYTES_MAX, BLOCKS_MAX, CONTROL_BYTES_MAX } from "./limits.ts";
import {
  DestinationCommand,
  DestinationReport,
  MigrateRequest,
  MigrationRequest,
  NodeInfo,
  Offer,
  SourceCommand,
  SourceReport,
  Switching,
  TuneRequest,
} from "./messages.ts";
import { MigrationEvent } from "./migration-info.ts";
import { seededRandom } from "./mutation.conformance.ts";
import { Manifest, OwnershipRecord } from "./ownership.ts";
import { PARAMETER_DEFAULTS, Parameters } from "./parameters.ts";

/** Inputs of the fuzz loop for each schema; a schema's complaint costs 20 to 100 us, a hundred times a binary decoder's. */
const FUZZ_RUNS = Math.ceil(Number(process.env["FUZZ_RUNS"] ?? 200_000) / 50);
const SEED = 0x60d317;
/** Refusing a message must not take longer than this, ms, however large it is: it runs on the control plane's event loop. */
const REFUSAL_MS = 1000;

const schemas = [
  ["a command to a source", SourceCommand],
  ["a command to a destination", DestinationCommand],
  ["a source's report", SourceReport],
  ["a destination's report", DestinationReport],
  ["the word that the record is switching", Switching],
  ["an ownership record", OwnershipRecord],
  ["a request to migrate", MigrateRequest],
  ["a request about a migration", MigrationRequest],
  ["a request to tune", TuneRequest],
  ["a migration's event", MigrationEvent],
  ["what a node has", NodeInfo],
] as const;

const utf8 = new TextEncoder();
const samplesOf = <A>(schema: Schema.Codec<A, unknown>, count: number): ReadonlyArray<A> =>
  Effect.runSync(
    Effect.orDie(Arbitrary.sampleEffect(Arbitrary.schema(schema) as Arbitrary.Arbitrary<A>, { count, seed: SEED })),
  );
/** What JSON cannot carry: lone surrogates are no UTF-8, -0 is 0. */
const survivesJson = (value: unknown): boolean =>
  !/\\u[dD][89a-fA-F]/.test(JSON.stringify(value)) && !holds(value, (leaf) => Object.is(leaf, -0));
/** A request's parameters may be anything until they are checked, 1e999 included; nothing else may. */
const isInfinite = (leaf: unknown): boolean => typeof leaf === "number" && !Number.isFinite(leaf);
const holds = (value: unknown, what: (leaf: unknown) => boolean): boolean =>
  what(value) ||
  (typeof value === "object" && value !== null && Object.values(value).some((part) => holds(part, what)));

const STRANGE: ReadonlyArray<string> = [
  "null",
  "true",
  "{}",
  "[]",
  '""',
  "-1",
  "0.5",
  "1e999",
  "-1e999",
  "9007199254740993",
  "4294967296",
  '"\\u0000"',
  '"\\ud800"',
  `"${"x".repeat(300)}"`,
  '{"__proto__":{"malformed":"no"}}',
  '{"constructor":{"prototype":null}}',
  "[[[[[[[[[[]]]]]]]]]]",
];
/** Breaks one place of a JSON text: a value, a key, or the text itself. */
const breakText = (text: string, random: () => number): string => {
  const below = (limit: number): number => Math.floor(random() * limit);
  const at = below(text.length);
  switch (below(5)) {
    case 0:
      return text.slice(0, at);
    case 1:
      return text.slice(0, at) + String.fromCharCode(below(256)) + text.slice(at + 1);
    default: {
      // A number, a word or a string becomes something strange; a string may be a key.
      const values = [...text.matchAll(/-?\d[\d.eE+-]*|true|false|null|"(?:[^"\\]|\\.)*"/g)];
      const value = values[below(values.length)];
      if (value === undefined) return `${text}x`;
      const put = STRANGE[below(STRANGE.length)]!;
      return text.slice(0, value.index) + put + text.slice(value.index + value[0].length);
    }
  }
};

describe.each(schemas)("%s as JSON", (_, schema) => {
  const codec = json(schema as unknown as Schema.Codec<unknown, unknown>);
  const samples = samplesOf<unknown>(schema as unknown as Schema.Codec<unknown, unknown>, 60).filter(survivesJson);

  it("comes out as it went in", () => {
    expect(samples.length).toBeGreaterThan(20);
    for (const value of samples) expect(codec.decode(codec.encode(value))).toEqual(value);
  });

  it(`never throws, and accepts only what it can say again, in ${FUZZ_RUNS} mutations`, () => {
    const random = seededRandom(SEED);
    const texts = samples.map((value) => JSON.stringify(value));
    let accepted = 0;
    for (let run = 0; run < FUZZ_RUNS; run++) {
      let text = texts[Math.floor(random() * texts.length)]!;
      for (let changes = 1 + Math.floor(random() * 2); changes > 0; changes--) text = breakText(text, random);
      const value = codec.decode(utf8.encode(text));
      if (isMalformed(value)) {
        if (value.malformed === "") throw new Error("refused without a reason");
        continue;
      }
      accepted++;
      const mayBeInfinite = schema === MigrateRequest || schema === TuneRequest;
      if (survivesJson(value) && !(mayBeInfinite && holds(value, isInfinite)))
        expect(codec.decode(codec.encode(value)), text).toEqual(value);
    }
    expect(accepted).toBeGreaterThan(0);
  });

  it("is refused when its bytes are no UTF-8, no JSON, nothing, or cut at any length", () => {
    const bytes = codec.encode(samples[0]!);
    for (const wrong of [new Uint8Array(0), Uint8Array.of(0xff, 0xfe), Uint8Array.of(0x7b), Uint8Array.of(0x22, 0xc3)])
      expect(isMalformed(codec.decode(wrong))).toBe(true);
    for (let length = 0; length < bytes.length; length++)
      expect(isMalformed(codec.decode(bytes.subarray(0, length)))).toBe(true);
  });

  it("is refused at once when it is too large, however it is nested, and quickly when it is just within the limit", () => {
    expect(codec.decode(new Uint8Array(CONTROL_BYTES_MAX + 1).fill(0x20))).toEqual({
      malformed: `${CONTROL_BYTES_MAX + 1} bytes, at most ${CONTROL_BYTES_MAX}`,
    });
    const half = CONTROL_BYTES_MAX / 2 - 16;
    const hostile = [
      "[".repeat(half) + "]".repeat(half),
      ['{"a":', "}"].map((part) => part.repeat(half / 6)).join("1"),
      `[${"1,".repeat(half)}1]`,
      `{"blocks":[${'{"name":1},'.repeat(half / 8)}0]}`,
      `{${Array.from({ length: half / 8 }, (_, i) => `"${i}":0`).join(",")}}`,
      `"${"\\u0000".repeat(half / 4)}"`,
    ];
    const started = performance.now();
    for (const text of hostile) {
      const result = codec.decode(utf8.encode(text.slice(0, CONTROL_BYTES_MAX)));
      if (isMalformed(result)) expect(result.malformed.length).toBeLessThanOrEqual(300);
    }
    expect(performance.now() - started).toBeLessThan(REFUSAL_MS * hostile.length);
  });
});

describe("a control message", () => {
  it("may hold an offer of as many blocks as there can be, each with the longest name", () => {
    const offer: Offer = {
      version: 1,
      driver: "qemu",
      machine: "m".repeat(255),
      hypervisor: "h".repeat(255),
      running: true,
      blocks: Array.from({ length: BLOCKS_MAX }, (_, index) => ({
        name: String(index).padStart(255, "x"),
        "length-bytes": BLOCK_BYTES_MAX,
        "page-size": 1024 ** 3,
      })),
    };
    const codec = json(Offer);
    expect(codec.encode(offer).length).toBeLessThan(CONTROL_BYTES_MAX - 64 * 1024);
    expect(codec.decode(codec.encode(offer))).toEqual(offer);
  });

  it("is refused with the place and the value that is wrong", () => {
    const wrong = { ...PARAMETER_DEFAULTS, "multifd-channels": 4711 };
    const result = json(Parameters).decode(utf8.encode(JSON.stringify(wrong)));
    expect(isMalformed(result) && result.malformed).toMatch(/multifd-channels/);
    expect(isMalformed(result) && result.malformed).toMatch(/4711/);
  });

  it.each([
    ["a manifest of a negative number of items", Manifest, { round: 3, items: -1, deviceBytes: 0 }],
    ["a manifest of round 0", Manifest, { round: 0, items: 1, deviceBytes: 0 }],
    ["a manifest of more device state than there can be", Manifest, { round: 1, items: 1, deviceBytes: 2 ** 40 }],
    [
      "a block that is no whole number of pages",
      Offer,
      {
        version: 1,
        driver: "qemu",
        machine: "",
        hypervisor: "",
        running: true,
        blocks: [{ name: "ram", "length-bytes": 4097, "page-size": 4096 }],
      },
    ],
  ] as const)("is refused for %s", (_, schema, value) => {
    const codec = json(schema as unknown as Schema.Codec<unknown, unknown>);
    expect(isMalformed(codec.decode(utf8.encode(JSON.stringify(value))))).toBe(true);
  });

  it("with a number that JSON knows and no link reaches is refused", () => {
    const report = samplesOf(SourceReport, 60).find(({ verdict }) => verdict !== undefined)!;
    const text = JSON.stringify({ ...report, verdict: { ...report.verdict, bandwidth: 4711.5 } });
    const codec = json(SourceReport);
    expect(isMalformed(codec.decode(utf8.encode(text)))).toBe(false);
    expect(isMalformed(codec.decode(utf8.encode(text.replace("4711.5", "1e999"))))).toBe(true);
  });
});

describe("isMalformed", () => {
  it("is not fooled by a message that has a field of that name", () => {
    const text = JSON.stringify({ guest: "vm", destination: "b", parameters: {}, capabilities: {}, malformed: "no" });
    expect(isMalformed(json(MigrateRequest).decode(utf8.encode(text)))).toBe(false);
  });
  it("is false for everything that is no refusal", () => {
    for (const value of [null, undefined, 1, "malformed", [], {}, { malformed: 1 }])
      expect(isMalformed(value)).toBe(false);
  });
});
