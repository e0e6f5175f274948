// Keeps the structure that ARCHITECTURE.md describes. What each check means stands beside it; `checks.test.ts` tries the checks.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { assert, describe, it } from "vitest";
import { dependencyViolations, foreignDependencies } from "./dependencies.ts";
import { deadLinks, unexplainedDependencies, unknownCommands } from "./documents.ts";
import { LINES_ALARM, lengthViolations, longerThan, nameViolations, reExportViolations } from "./file-shape.ts";
import { layeringViolations } from "./layering.ts";
import { barrelViolations, decisionViolations, kernelViolations } from "./purity.ts";
import { readFiles, readPackages, type SourceFile, type Violation } from "./source-tree.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const packages = readPackages(ROOT);
const typescript = ["libs", "services", "test"].flatMap((folder) => readFiles(ROOT, folder, [".ts"]));
const all = readFiles(ROOT, ".", [""]);
const code = all.filter(({ path }) => /\.(ts|mts|mjs|js|sh)$/.test(path) || path.startsWith(".ci/"));
const documents = all.filter(({ path }) => path.endsWith(".md"));

const none = (violations: ReadonlyArray<Violation>): void =>
  assert.isEmpty(violations, `\n${violations.map(({ path, problem }) => `  ${path}: ${problem}`).join("\n")}\n`);

const document = (name: string): SourceFile => {
  const path = join(ROOT, name);
  assert.isTrue(existsSync(path), `${name} is missing`);
  return { path: name, text: readFileSync(path, "utf8") };
};

describe("the code", () => {
  it("is layered: libs import lower libs only, and nobody reaches past an entry point", () => {
    none(layeringViolations(typescript, packages));
  });
  it("keeps Effect out of kernels", () => none(kernelViolations(typescript)));
  it("keeps decisions pure", () => none(decisionViolations(typescript)));
  it("imports Effect module by module", () => none(barrelViolations(typescript)));
  it("re-exports in entry points only", () => none(reExportViolations(typescript, packages)));
  it("has no file above 500 lines", () => {
    const long = longerThan(code, LINES_ALARM);
    if (long.length > 0) {
      console.log([`above ${LINES_ALARM} lines:`, ...long.map(({ path, lines }) => `  ${lines} ${path}`)].join("\n"));
    }
    none(lengthViolations(code));
  });
  it("names every file and folder after what is in it", () => none(nameViolations(all.map(({ path }) => path))));
});

describe("the dependencies", () => {
  it("are declared where they are imported, and imported where they are declared", () => {
    none(dependencyViolations(typescript, packages));
  });
  it("are each explained in ARCHITECTURE.md", () => {
    none(unexplainedDependencies(document("ARCHITECTURE.md"), foreignDependencies(packages)));
  });
});

describe("the documents", () => {
  const scripts = packages.find(({ folder }) => folder === ".")?.scripts ?? [];

  it("include a README whose commands exist", () => none(unknownCommands(document("README.md"), scripts)));
  it("name only commands that exist", () => none(documents.flatMap((text) => unknownCommands(text, scripts))));
  it("link only to files that exist", () => {
    none(documents.flatMap((text) => deadLinks(text, (path) => existsSync(join(ROOT, path)))));
  });
});
