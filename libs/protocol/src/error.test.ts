import * as Arbitrary from "effect/Arbitrary";
import * as Effect from "effect/Effect";
import { describe, expect, it } from "vitest";
import { type ErrorCode, GodwitError, REMEDIES } from "./error.ts";
import { fromError, toError } from "./failure.ts";
import { isMalformed, json } from "./json.ts";
import { FailureSchema } from "./migration-info.ts";

const codes = Object.keys(REMEDIES) as ReadonlyArray<ErrorCode>;
const samples = Effect.runSync(
  Effect.orDie(Arbitrary.sampleEffect(Arbitrary.schema(FailureSchema), { count: 100, seed: 1 })),
);
const codec = json(GodwitError as never);

describe("an error code", () => {
  it.each(codes)("%s is a few plain words, and has a remedy that is a sentence of its own", (code) => {
    expect(code).toMatch(/^[a-z]+(-[a-z]+)*$/);
    expect(REMEDIES[code].length).toBeGreaterThan(10);
    expect(REMEDIES[code]).not.toMatch(/[.;]$/);
  });
});

describe("a GodwitError", () => {
  it.each(codes)("of code %s says what was wrong, who met it, and what to do", (code) => {
    const error = new GodwitError({ code, actor: "loader", step: "apply pages", reason: "page 17 is gone" });
    for (const part of [code, "page 17 is gone", "loader", "apply pages", REMEDIES[code]])
      expect(error.message).toContain(part);
    expect(error.remedy).toBe(REMEDIES[code]);
    expect(error).toBeInstanceOf(Error);
    expect(error._tag).toBe("GodwitError");
  });

  it("lists every difference, with both sides' values", () => {
    const differences = [
      { what: "machine type", mine: "pc-10.0", yours: "pc-9.2" },
      { what: "RAMBlock vga", mine: "absent", yours: "16 MiB" },
    ];
    const { message } = new GodwitError({
      code: "incompatible",
      actor: "loader",
      step: "compare",
      reason: "x",
      differences,
    });
    for (const { what, mine, yours } of differences) expect(message).toContain(`${what}: mine ${mine}, yours ${yours}`);
  });

  it("survives a trip over NATS as JSON, with every field it had and none it had not", () => {
    for (const failure of samples) {
      const error = toError(failure);
      const back = codec.decode(codec.encode(error as never)) as unknown;
      if (isMalformed(back)) throw new Error(back.malformed);
      expect(back).toBeInstanceOf(GodwitError);
      expect(fromError(back as GodwitError)).toEqual(JSON.parse(JSON.stringify(failure)));
      expect((back as GodwitError).message).toBe(toError(JSON.parse(JSON.stringify(failure))).message);
    }
  });

  it("is refused with a code that is not in the table", () => {
    for (const code of ["", "toString", "Cancelled", "unheard-of"]) {
      const text = JSON.stringify({ _tag: "GodwitError", code, actor: "a", step: "s", reason: "r" });
      expect(isMalformed(codec.decode(new TextEncoder().encode(text)))).toBe(true);
    }
  });
});

describe("a failure", () => {
  it("is the same after it was an error", () => {
    for (const failure of samples) expect(fromError(toError(failure))).toEqual(failure);
  });
});
