import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createShadowFile, sweepShadowFiles } from "./shadow-file.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync("/dev/shm/godwit-shadows-");
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** A process that creates a shadow file, says so, and waits to be killed. */
const OWNER = `
  const { createShadowFile } = await import(process.argv[1]);
  createShadowFile(process.argv[2], 4096);
  console.log("created");
  setInterval(() => {}, 1000);
`;

describe("shadow files", () => {
  it("vanish when they are removed", () => {
    const file = createShadowFile(directory, 8192);
    expect(readdirSync(directory)).toHaveLength(1);
    file.remove();
    expect(readdirSync(directory)).toEqual([]);
  });

  it("of a living owner survive a sweep, those of a killed one do not", async () => {
    const mine = createShadowFile(directory, 8192);
    const module = fileURLToPath(new URL("./shadow-file.ts", import.meta.url));
    const owner = spawn(process.execPath, ["--input-type=module", "-e", OWNER, module, directory], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(owner.stdout, "data");
    expect(readdirSync(directory)).toHaveLength(2);
    expect(sweepShadowFiles(directory)).toBe(0);
    owner.kill("SIGKILL");
    await once(owner, "exit");
    expect(sweepShadowFiles(directory)).toBe(1);
    expect(readdirSync(directory)).toHaveLength(1);
    mine.remove();
  });

  it("are refused with ENOSPC where they could not be filled", () => {
    expect(() => createShadowFile(directory, 2 ** 50)).toThrow(/ENOSPC/);
    expect(readdirSync(directory)).toEqual([]);
  });
});
