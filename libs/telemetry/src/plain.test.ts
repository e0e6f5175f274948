import * as Schema from "effect/Schema";
import { assert, describe, it } from "vitest";
import { describeError, plain } from "./plain.ts";

class Full extends Schema.TaggedError<Full>()("Full", { path: Schema.String, freeBytes: Schema.Int }) {
  override get message(): string {
    return `no space left in ${this.path}`;
  }
}

describe("a value in the log", () => {
  it("keeps an expected error's tag, message and data, and nothing of Effect's class", () => {
    assert.deepStrictEqual(describeError(new Full({ path: "/dev/shm", freeBytes: 12 })), {
      type: "Full",
      message: "no space left in /dev/shm",
      path: "/dev/shm",
      freeBytes: 12,
    });
  });

  it("keeps the stack, the system's code and the causes of an unexpected error", () => {
    const error = Object.assign(new TypeError("broken", { cause: new Full({ path: "/x", freeBytes: 0 }) }), {
      code: "EIO",
    });
    const described = describeError(error);
    assert.strictEqual(described["type"], "TypeError");
    assert.strictEqual(described["code"], "EIO");
    assert.match(String(described["stack"]), /plain\.test\.ts/);
    assert.deepInclude(described["cause"], { type: "Full", path: "/x" });
  });

  it("never holds page bytes, endless lists, endless texts or cycles", () => {
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    assert.strictEqual(plain(new Uint8Array(4096)), "[4096 bytes]");
    assert.deepStrictEqual((plain(Array.from({ length: 40 }, (_, i) => i)) as Array<unknown>).at(-1), "... 8 more");
    assert.isBelow(String(plain("x".repeat(100_000))).length, 10_000);
    assert.include(JSON.stringify(plain(cycle)), "[object]");
  });

  it("writes what JSON has no word for as text", () => {
    assert.deepStrictEqual(plain({ big: 2n ** 64n, nan: Number.NaN, map: new Map([["a", 1]]), "~effect/X": 1 }), {
      big: "18446744073709551616",
      nan: "NaN",
      map: { a: 1 },
    });
  });
});
