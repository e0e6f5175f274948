// A check that cannot fail checks nothing: each is shown something bad, and something good that looks like it.
import { assert, describe, it } from "vitest";
import { dependencyViolations, foreignDependencies } from "./dependencies.ts";
import { deadLinks, unexplainedDependencies, unknownCommands } from "./documents.ts";
import { LINES_MAX, lengthViolations, nameViolations, reExportViolations } from "./file-shape.ts";
import { layeringViolations } from "./layering.ts";
import { barrelViolations, decisionViolations, kernelViolations } from "./purity.ts";
import { importsOf, packageOf } from "./source-text.ts";
import { type Package, parsePackage, type SourceFile, type Violation } from "./source-tree.ts";

const file = (path: string, ...lines: ReadonlyArray<string>): SourceFile => ({ path, text: lines.join("\n") });
const pack = (folder: string, ...dependencies: ReadonlyArray<string>): Package =>
  parsePackage(
    `${folder}/package.json`,
    JSON.stringify({
      name: `@godwit/${folder.split("/")[1]}`,
      dependencies: Object.fromEntries(dependencies.map((d) => [d, "1"])),
    }),
  );
const root = parsePackage(
  "package.json",
  JSON.stringify({ name: "root", devDependencies: { vitest: "1" }, scripts: { test: "x", "demo:qemu": "y" } }),
);
const problems = (violations: ReadonlyArray<Violation>): ReadonlyArray<string> =>
  violations.map(({ problem }) => problem);

describe("reading imports", () => {
  it("finds every form, and tells types from values", () => {
    const text = [
      'import "./side.ts";',
      'import a, { b } from "one";',
      "import {\n  c,\n  d,\n} from 'two/sub';",
      'import type { E } from "@three/x/y";',
      'export * as f from "./four.ts";',
      'export type { G } from "five";',
      'const h = await import("six");',
    ].join("\n");
    assert.deepStrictEqual(
      importsOf(text)
        .map(({ specifier, typeOnly }) => (typeOnly ? `type ${specifier}` : specifier))
        .sort(),
      ["./four.ts", "./side.ts", "one", "six", "two/sub", "type @three/x/y", "type five"],
    );
    assert.deepStrictEqual(["one", "two/sub", "@three/x/y", "./four.ts", "node:fs"].map(packageOf), [
      "one",
      "two",
      "@three/x",
      undefined,
      undefined,
    ]);
  });

  it("ignores comments and what stands in strings", () => {
    assert.isEmpty(importsOf('// import "a";\n/*\nimport "b";\n*/\nconst text = \'import "c"\';'));
  });
});

describe("the check of layers", () => {
  const packages = [root, pack("libs/host"), pack("libs/memory"), pack("services/loader")];

  it("refuses a lib that imports a service, a higher lib, or past an entry point", () => {
    const bad = [
      file("libs/memory/src/a.ts", 'import { x } from "@godwit/loader";'),
      file("libs/host/src/b.ts", 'import type { y } from "@godwit/memory";'),
      file("services/loader/src/c.ts", 'import { z } from "../../../libs/host/src/z.ts";'),
    ];
    assert.deepStrictEqual(problems(layeringViolations(bad, packages)), [
      "a lib imports the service services/loader",
      "libs/host imports libs/memory, which stands above it",
      "reaches into libs/host/src/z.ts: import the package by its name",
    ]);
  });

  it("refuses the same in a package.json, and a lib without a place in the order", () => {
    const bad = [...packages, pack("libs/protocol", "@godwit/memory"), pack("libs/extra", "@godwit/host")];
    assert.deepStrictEqual(problems(layeringViolations([], bad)), [
      "libs/protocol imports libs/memory, which stands above it",
      "libs/extra has no place in LIB_ORDER",
    ]);
  });

  it("allows a lower lib, a service that imports libs, and the set-up's programs", () => {
    const good = [
      file("libs/memory/src/a.ts", 'import { x } from "@godwit/host";', 'import { y } from "./kernel/y.ts";'),
      file("services/loader/src/b.ts", 'import { z } from "@godwit/memory";'),
      file("libs/host/src/c.ts", 'import { n } from "../../../scripts/setup-nats.mjs";'),
    ];
    assert.isEmpty(layeringViolations(good, packages));
  });
});

describe("the checks of purity", () => {
  it("refuse Effect in a kernel, and only there", () => {
    const line = 'import * as Effect from "effect/Effect";';
    assert.lengthOf(kernelViolations([file("libs/memory/src/kernel/scan.ts", line)]), 1);
    assert.isEmpty(
      kernelViolations([file("libs/memory/src/scan.ts", line), file("libs/m/src/kernel/s.test.ts", line)]),
    );
  });

  it.each([
    'import * as Effect from "effect/Effect";',
    'import { readFileSync } from "node:fs";',
    "const now = Date.now();",
    "const now = new Date();",
    "const dice = Math.random();",
    "const t = performance.now();",
    "setTimeout(tick, 10);",
    "const id = crypto.randomUUID();",
    `const id = \`\${Date.now()}\`;`,
    "const level = process.env.LEVEL;",
    "export const step = async () => {};",
  ])("refuse in a decision: %s", (line) => {
    assert.isNotEmpty(decisionViolations([file("services/x/src/decisions.ts", line)]));
    assert.isNotEmpty(decisionViolations([file("services/x/src/decisions/step.ts", line)]));
  });

  it("follow what a decision uses at run time", () => {
    const files = [
      file(
        "services/x/src/decisions/step.ts",
        'import { later } from "../clock.ts";',
        'import type { S } from "../shell.ts";',
      ),
      file("services/x/src/clock.ts", "export const later = () => Date.now();"),
      file("services/x/src/shell.ts", 'import * as Effect from "effect/Effect";'),
    ];
    assert.deepStrictEqual(decisionViolations(files), [
      { path: "services/x/src/clock.ts", problem: "what a decision uses uses Date.now" },
    ]);
  });

  it("allow the words in comments and texts, and impurity elsewhere", () => {
    const good = [
      file(
        "services/x/src/decisions.ts",
        "// no Date.now here",
        'const why = "crypto";',
        "const processed = updateDate(nowMs);",
      ),
      file("services/x/src/shell.ts", "const now = Date.now();"),
      file("services/x/src/decisions/step.test.ts", "const now = Date.now();"),
    ];
    assert.isEmpty(decisionViolations(good));
  });

  it("refuse the barrels", () => {
    const bad = file(
      "libs/x/src/a.ts",
      'import { Effect } from "effect";',
      'import { NodeRuntime } from "@effect/platform-node";',
    );
    assert.lengthOf(barrelViolations([bad]), 2);
    assert.isEmpty(barrelViolations([file("libs/x/src/a.ts", 'import * as Effect from "effect/Effect";')]));
  });
});

describe("the checks of files", () => {
  it("refuse one line too many", () => {
    const lines = (count: number): SourceFile => ({ path: "a.ts", text: "x\n".repeat(count) });
    assert.isEmpty(lengthViolations([lines(LINES_MAX)]));
    assert.lengthOf(lengthViolations([lines(LINES_MAX + 1)]), 1);
  });

  it("refuse names that say nothing, also as a part", () => {
    const bad = ["libs/x/src/utils.ts", "libs/helpers/a.ts", "a/guest-manager.ts", "a/common/b.ts", "a/test_util.ts"];
    assert.lengthOf(nameViolations(bad), bad.length);
    assert.isEmpty(nameViolations(["libs/x/src/utilization.ts", "a/commonality.ts", "a/page.ts"]));
  });

  it("refuse code in an index and re-exports that are no entry point", () => {
    const packages = [
      parsePackage(
        "libs/x/package.json",
        JSON.stringify({ name: "x", exports: { ".": "./src/index.ts", "./a": "./src/a.ts" } }),
      ),
    ];
    const good = [
      file(
        "libs/x/src/index.ts",
        "// a",
        'export * from "./a.ts";',
        'export { b, type C } from "./b.ts";',
        "export {};",
      ),
      file("libs/x/src/a.ts", 'export { b } from "./b.ts";'),
    ];
    const bad = [
      file("libs/x/src/index.ts", "export const a = 1;"),
      file("libs/x/src/b.ts", 'export { c } from "./c.ts";'),
    ];
    assert.isEmpty(reExportViolations(good, packages));
    assert.lengthOf(reExportViolations(bad, packages), bad.length);
  });
});

describe("the check of dependencies", () => {
  it("refuses what is imported and not declared, and what is declared and not imported", () => {
    const packages = [root, pack("libs/x", "koffi", "pino")];
    const files = [
      file(
        "libs/x/src/a.ts",
        'import koffi from "koffi";',
        'import * as Effect from "effect/Effect";',
        'import "vitest";',
      ),
      file("libs/x/src/a.test.ts", 'import { it } from "vitest";'),
      file("test/integration/b.test.ts", 'import "koffi";', 'import "@godwit/x";', 'import "left-pad";'),
    ];
    assert.deepStrictEqual(problems(dependencyViolations(files, packages)), [
      "imports effect, which libs/x/package.json does not name",
      "imports vitest, which libs/x/package.json does not name",
      "names pino, which nothing there uses",
      "imports left-pad, which no package.json names",
    ]);
  });

  it("counts a program that is resolved and started as used, and a comment not", () => {
    const packages = [root, pack("services/node", "@godwit/loader", "@godwit/coordinator")];
    const files = [
      file("services/node/src/a.ts", 'const entry = "@godwit/loader/main";', '// "@godwit/coordinator/main"'),
    ];
    assert.deepStrictEqual(problems(dependencyViolations(files, packages)), [
      "names @godwit/coordinator, which nothing there uses",
    ]);
  });

  it("lists each foreign package once", () => {
    assert.deepStrictEqual(foreignDependencies([root, pack("libs/x", "koffi", "@godwit/y"), pack("libs/y", "koffi")]), [
      "koffi",
      "vitest",
    ]);
  });
});

describe("the checks of documents", () => {
  it("miss a dependency that is only part of another word", () => {
    const text = file("ARCHITECTURE.md", "`@effect/vitest`, pinout and **koffi**: system calls");
    assert.deepStrictEqual(problems(unexplainedDependencies(text, ["koffi", "pino", "effect", "@effect/vitest"])), [
      "does not say why pino is there",
      "does not say why effect is there",
    ]);
  });

  it("refuse a command that is no script", () => {
    const text = file("README.md", "npm test", "npm run demo:qemu -- --json", "npm run fly", "npm ci");
    assert.deepStrictEqual(problems(unknownCommands(text, root.scripts)), [
      "`npm run fly` is no script of package.json",
    ]);
  });

  it("refuse a link to nothing", () => {
    const text = file("docs/a.md", "[x](../README.md) [y](b.md#part) [z](https://example.org/c.md) [w](#here)");
    assert.deepStrictEqual(problems(deadLinks(text, (path) => path === "README.md")), [
      "links to docs/b.md, which does not exist",
    ]);
  });
});
