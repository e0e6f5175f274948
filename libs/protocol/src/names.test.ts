import * as Schema from "effect/Schema";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Epoch, Incarnation, isMigrationId, isSafeName, MigrationId, Name } from "./ids.ts";
import { PREFIX, subjects } from "./subjects.ts";

const UNSAFE = ["", ".", "..", "a.b", "a b", "a/b", "../etc", "*", ">", "a*", "ä", "a\n", "\0", "$SYS", "x".repeat(65)];
const safe = fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/);
const id = fc.stringMatching(/^[0-9a-f]{16}$/);

describe("a name", () => {
  it("is 1 to 64 characters that mean nothing to a subject, a path or a key", () => {
    fc.assert(fc.property(safe, (name) => isSafeName(name) && Schema.is(Name)(name)));
    for (const name of UNSAFE) {
      expect(isSafeName(name), name).toBe(false);
      expect(Schema.is(Name)(name), name).toBe(false);
    }
  });
});

describe("a migration's id", () => {
  it("is 16 lower-case hex digits", () => {
    fc.assert(fc.property(id, (text) => isMigrationId(text) && Schema.is(MigrationId)(text)));
    for (const text of ["", "0".repeat(15), "0".repeat(17), "G".repeat(16), "A".repeat(16), `${"0".repeat(15)}\n`]) {
      expect(isMigrationId(text), text).toBe(false);
      expect(Schema.is(MigrationId)(text), text).toBe(false);
      expect(Schema.is(Incarnation)(text), text).toBe(false);
    }
  });
});

describe("an epoch", () => {
  it("is a 32-bit number that is not 0", () => {
    for (const epoch of [1, 2, 0xffff_ffff]) expect(Schema.is(Epoch)(epoch)).toBe(true);
    for (const epoch of [0, -1, 1.5, 2 ** 32, Number.NaN, "1", null]) expect(Schema.is(Epoch)(epoch)).toBe(false);
  });
});

describe("a subject", () => {
  const all = (name: string, other: string, migration: string): ReadonlyArray<string> => {
    const route = { migration, source: name, destination: other };
    return [
      subjects.coordinator(name),
      subjects.owner(name),
      subjects.node(name, other),
      subjects.source(name),
      subjects.sourceQuery(name),
      subjects.missingPages(name, other),
      subjects.keyAgreement(name, other),
      subjects.destination(name),
      subjects.destinationQuery(name),
      subjects.vfio(name),
      subjects.vfioQuestion(name),
      subjects.work(name, other, name),
      subjects.urgentWork(name, other, name),
      subjects.fileWork(name, other),
      subjects.fileAnswer(name, migration),
      subjects.channel(route, 0),
      subjects.channel(route, 254),
      subjects.urgent(route),
      subjects.deviceChannel(route, 0),
      subjects.acknowledgement(route),
      subjects.deviceAcknowledgement(route),
      subjects.refusal(route),
      subjects.deviceRefusal(route),
      subjects.switching(route),
      subjects.sourceReport(route),
      subjects.destinationReport(route),
      subjects.saveReport(route),
      subjects.loadReport(route),
      subjects.event(route),
    ];
  };

  it("is below godwit's prefix and holds no wildcard, from whatever safe names it is made", () => {
    fc.assert(
      fc.property(safe, safe, id, (name, other, migration) => {
        for (const subject of all(name, other, migration)) {
          const tokens = subject.split(".");
          expect(tokens[0]).toBe(PREFIX);
          for (const token of tokens) expect(token).toMatch(/^[A-Za-z0-9_-]+$/);
        }
      }),
    );
  });

  it("is one purpose's alone: two purposes, nodes, workers, migrations or channels never share one", () => {
    fc.assert(
      fc.property(safe, safe, id, id, (one, other, first, second) => {
        // A node's own verbs are words of godwit, and never "source" or "destination".
        const words = [one, other].map((name) => `n-${name}`);
        const both = [...all(words[0]!, "info", first), ...(first === second ? [] : all(words[1]!, "info", second))];
        const distinct = words[0] === words[1] ? all(words[0]!, "info", first) : both;
        expect(new Set(distinct).size).toBe(distinct.length);
      }),
    );
  });

  it("of all channels of a migration covers each of them, and no other migration's or way's", () => {
    const route = { migration: "0".repeat(16), source: "a", destination: "b" };
    const pattern = subjects.channels(route).split(".");
    const matches = (subject: string): boolean => {
      const tokens = subject.split(".");
      return tokens.length === pattern.length && tokens.every((token, i) => pattern[i] === "*" || pattern[i] === token);
    };
    for (const channel of [0, 1, 254]) expect(matches(subjects.channel(route, channel))).toBe(true);
    expect(matches(subjects.channel({ ...route, migration: "1".repeat(16) }, 0))).toBe(false);
    expect(matches(subjects.channel({ ...route, source: "c" }, 0))).toBe(false);
    expect(matches(subjects.channel({ ...route, destination: "c" }, 0))).toBe(false);
    expect(matches(subjects.deviceChannel(route, 0))).toBe(false);
    expect(matches(subjects.acknowledgement(route))).toBe(false);
  });
});
