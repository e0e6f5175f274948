import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it, vi } from "vitest";
import { programFile } from "./program.ts";

const source = new URL("./ioctl-loop.ts", import.meta.url);
const built = fileURLToPath(new URL("../../../.cache/programs/libs/host/src/ioctl-loop.js", import.meta.url));

describe("a program of godwit's own", () => {
  afterEach(() => void vi.unstubAllEnvs());

  it("is the built one where whoever starts it has made sure that there is a build", () => {
    expect(programFile(source)).toBe(built);
    expect(existsSync(built)).toBe(true);
  });

  it("is its source when nobody has, or when another checkout's build is meant", () => {
    for (const folder of ["", "/elsewhere/.cache/programs"]) {
      vi.stubEnv("GODWIT_PROGRAMS", folder);
      expect(programFile(source)).toBe(fileURLToPath(source));
    }
  });

  it("is its source when it is not among those that are built", () => {
    const other = new URL("./whole-io.ts", import.meta.url);
    expect(programFile(other)).toBe(fileURLToPath(other));
  });
});
