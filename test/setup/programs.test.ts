import { execFileSync } from "node:child_process";
import { appendFileSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ROOT } from "../cli/godwit-process.ts";

let clone: string;
beforeAll(() => {
  clone = mkdtempSync(join(tmpdir(), "godwit-clone-"));
  for (const part of ["libs", "services", "scripts", "package.json", "package-lock.json"])
    cpSync(join(ROOT, part), join(clone, part), { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(clone, "node_modules"));
});
afterAll(() => rmSync(clone, { recursive: true, force: true }));

/** What the set-up of the clone says to those that it starts. */
const provide = (): string =>
  execFileSync(
    process.execPath,
    [
      "--input-type=module",
      "--eval",
      `import { providePrograms } from ${JSON.stringify(join(clone, "scripts", "programs.mjs"))};
       await providePrograms(console.error);
       console.log(process.env.GODWIT_PROGRAMS);`,
    ],
    { encoding: "utf8" },
  ).trim();
const worker = (folder: string): string => join(folder, "services", "multifd-worker", "src", "main.js");

describe("the built programs of a clone", () => {
  it("are built once, again when a source has changed, and not for a test", () => {
    const folder = provide();
    expect(folder).toBe(join(clone, ".cache", "programs"));
    const built = statSync(worker(folder)).ino;

    appendFileSync(join(clone, "services", "node", "src", "actor-child.test.ts"), "// Changed.\n");
    expect(provide()).toBe(folder);
    expect(statSync(worker(folder)).ino).toBe(built);

    appendFileSync(join(clone, "services", "multifd-worker", "src", "main.ts"), 'console.log("changed");\n');
    expect(provide()).toBe(folder);
    expect(readFileSync(worker(folder), "utf8")).toContain('"changed"');
  });

  it("leave nothing else behind, and run", () => {
    const folder = provide();
    expect(readdirSync(join(clone, ".cache"))).toEqual(["programs"]);
    const help = execFileSync(process.execPath, [join(folder, "services", "cli", "src", "main.js"), "help"]);
    expect(help.toString()).toContain("start-postcopy");
  });

  it("that cannot be built say why", () => {
    appendFileSync(join(clone, "services", "loader", "src", "main.ts"), "this is no TypeScript\n");
    expect(provide).toThrow(/the programs could not be built:[\s\S]*services\/loader\/src\/main\.ts/);
  });
});
