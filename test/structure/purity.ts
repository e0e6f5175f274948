import { dirname, join } from "node:path/posix";
import { codeOnly, importsOf, packageOf } from "./source-text.ts";
import { isTest, type SourceFile, type Violation } from "./source-tree.ts";

const isEffect = (specifier: string): boolean => {
  const name = packageOf(specifier);
  return name === "effect" || name?.startsWith("@effect/") === true;
};

/** Per-page and per-byte loops cannot afford Effect. */
export const kernelViolations = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Violation> =>
  files
    .filter(({ path }) => path.split("/").includes("kernel") && !isTest(path))
    .flatMap(({ path, text }) =>
      importsOf(text)
        .filter(({ specifier }) => isEffect(specifier))
        .map(({ specifier }) => ({ path, problem: `a kernel imports ${specifier}` })),
    );

/** Whatever makes two runs with the same events differ, or touches the world. */
const IMPURE =
  /\b(Date\s*\.\s*now|new\s+Date\b|Math\s*\.\s*random|performance\b|setTimeout|setInterval|setImmediate|queueMicrotask|crypto\b|process\s*\.|globalThis|console\s*\.|await\b|async\b|fetch\s*\()/g;

const isDecision = (path: string): boolean => /(^|\/)decisions(\.ts$|\/)/.test(path);

/**
 * Decisions are pure step functions: no Effect, no Node.js, no clock, no randomness. That holds for every file of the same package
 * that they use at run time as well.
 */
export const decisionViolations = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Violation> => {
  const byPath = new Map(files.map((file) => [file.path, file]));
  const pure = new Set<SourceFile>();
  const include = (file: SourceFile | undefined): void => {
    if (file === undefined || pure.has(file) || isTest(file.path)) return;
    pure.add(file);
    for (const { specifier, typeOnly } of importsOf(file.text)) {
      if (specifier.startsWith(".") && !typeOnly) include(byPath.get(join(dirname(file.path), specifier)));
    }
  };
  for (const file of files) if (isDecision(file.path)) include(file);
  return [...pure].flatMap(impurities);
};

const impurities = ({ path, text }: SourceFile): ReadonlyArray<Violation> => {
  const who = isDecision(path) ? "a decision" : "what a decision uses";
  const imports = importsOf(text)
    .filter(({ specifier, typeOnly }) => specifier.startsWith("node:") || (isEffect(specifier) && !typeOnly))
    .map(({ specifier }) => ({ path, problem: `${who} imports ${specifier}` }));
  const words = [...codeOnly(text).matchAll(IMPURE)].map(([word]) => ({ path, problem: `${who} uses ${word}` }));
  return [...imports, ...words];
};

/** The barrels load everything: 0.5 s and 1.3 s of every actor's start, during which it is deaf to signals. */
const BARRELS = ["effect", "@effect/platform-node"];

/** Effect is imported module by module. */
export const barrelViolations = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Violation> =>
  files.flatMap(({ path, text }) =>
    importsOf(text)
      .filter(({ specifier, typeOnly }) => BARRELS.includes(specifier) && !typeOnly)
      .map(({ specifier }) => ({ path, problem: `imports the barrel ${specifier}: import ${specifier}/Module` })),
  );
