import { importsOf, withoutComments } from "./source-text.ts";
import { isTest, type Package, type SourceFile, type Violation } from "./source-tree.ts";

/** No file is longer, lines. */
export const LINES_MAX = 500;
/** A longer one is worth a look, lines. */
export const LINES_ALARM = 300;

const lineCount = (text: string): number => text.split("\n").length - (text.endsWith("\n") ? 1 : 0);

export const lengthViolations = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Violation> =>
  longerThan(files, LINES_MAX).map(({ path, lines }) => ({ path, problem: `${lines} lines, at most ${LINES_MAX}` }));

/** Files above `limit` lines, longest first. */
export const longerThan = (
  files: ReadonlyArray<SourceFile>,
  limit: number,
): ReadonlyArray<{ path: string; lines: number }> =>
  files
    .map(({ path, text }) => ({ path, lines: lineCount(text) }))
    .filter(({ lines }) => lines > limit)
    .sort((a, b) => b.lines - a.lines);

/** Names for what nobody named. */
const NAMELESS = /^(utils?|utilities|helpers?|common|commons|misc|managers?)$/i;

/** No file or folder is called, wholly or in part, what says nothing about it. */
export const nameViolations = (paths: ReadonlyArray<string>): ReadonlyArray<Violation> =>
  paths.flatMap((path) => {
    const word = path.split(/[/.\-_]/).find((part) => NAMELESS.test(part));
    return word === undefined ? [] : [{ path, problem: `"${word}" says nothing: name the thing` }];
  });

/** A package's entry points only re-export, and nothing else does: a name has one way to it. */
export const reExportViolations = (
  files: ReadonlyArray<SourceFile>,
  packages: ReadonlyArray<Package>,
): ReadonlyArray<Violation> => {
  const entryPoints = packages.flatMap((each) => each.entryPoints);
  return files.flatMap(({ path, text }) => {
    if (path.endsWith("/index.ts")) {
      return withoutComments(text).replace(RE_EXPORT, "").trim() === ""
        ? []
        : [{ path, problem: "an index.ts only re-exports" }];
    }
    if (isTest(path) || entryPoints.includes(path)) return [];
    const exported = importsOf(text).find(({ reExport }) => reExport);
    return exported === undefined ? [] : [{ path, problem: `re-exports ${exported.specifier}: only entry points do` }];
  });
};

const RE_EXPORT = /\bexport\s+(type\s+)?(\*(\s+as\s+\w+)?|\{[^}]*\})\s*(from\s*"[^"]*")?\s*;/g;
