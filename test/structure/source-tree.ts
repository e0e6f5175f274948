import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** A file of the project; `path` is relative to its root, with `/`. */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

/** A package.json with the folder it describes (`libs/host`; `.` for the root). */
export interface Package {
  readonly folder: string;
  readonly name: string;
  readonly dependencies: ReadonlyArray<string>;
  readonly devDependencies: ReadonlyArray<string>;
  readonly optionalDependencies: ReadonlyArray<string>;
  readonly scripts: ReadonlyArray<string>;
  /** Files that other packages may import, relative to the root. */
  readonly entryPoints: ReadonlyArray<string>;
}

/** Something that breaks the structure: where, and what to do about it. */
export interface Violation {
  readonly path: string;
  readonly problem: string;
}

const GENERATED = ["node_modules", ".git", ".cache", "bench-results"];

/** Every file below `root/folder` whose name ends in one of `endings`, with its text. */
export const readFiles = (root: string, folder: string, endings: ReadonlyArray<string>): ReadonlyArray<SourceFile> =>
  walk(join(root, folder))
    .filter((path) => endings.some((ending) => path.endsWith(ending)))
    .map((path) => ({ path: path.slice(join(root, "/").length), text: readFileSync(path, "utf8") }));

/** Every file and folder below `folder`, as paths. */
const walk = (folder: string): ReadonlyArray<string> =>
  readdirSync(folder, { withFileTypes: true })
    .filter((entry) => !GENERATED.includes(entry.name))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? walk(path) : [path];
    });

/** The package.json of the root and of every workspace. */
export const readPackages = (root: string): ReadonlyArray<Package> =>
  readFiles(root, ".", ["package.json"]).map(({ path, text }) => parsePackage(path, text));

export const parsePackage = (path: string, text: string): Package => {
  const json = JSON.parse(text);
  const folder = dirname(path);
  const entries: ReadonlyArray<string> = Object.values(json.exports ?? {});
  return {
    folder,
    name: json.name,
    dependencies: Object.keys(json.dependencies ?? {}),
    devDependencies: Object.keys(json.devDependencies ?? {}),
    optionalDependencies: Object.keys(json.optionalDependencies ?? {}),
    scripts: Object.keys(json.scripts ?? {}),
    entryPoints: entries.map((entry) => join(folder, entry)),
  };
};

/** Tests, the conformance suites that tests run, and all of `test/`. */
export const isTest = (path: string): boolean =>
  /\.(test|conformance)\.ts$|\/conformance\//.test(path) || path.startsWith("test/");
