import { dirname, join } from "node:path/posix";
import { importsOf, packageOf } from "./source-text.ts";
import { isTest, type Package, type SourceFile, type Violation } from "./source-tree.ts";

/** Lowest first; a lib imports only libs that stand before it. */
export const LIB_ORDER = [
  "host",
  "protocol",
  "encryption",
  "fabric",
  "memory",
  "multifd",
  "checkpoint",
  "vfio",
  "guest",
  "telemetry",
  "actor",
];

/** The pinned programs of the set-up, which libs may use: what finds nats-server must be one piece of code. */
const SHARED_FOLDER = "scripts";

const folderOf = (path: string): string => path.split("/").slice(0, 2).join("/");

/** Libs import lower libs only, never a service; nobody reaches into another package past its entry point. */
export const layeringViolations = (
  files: ReadonlyArray<SourceFile>,
  packages: ReadonlyArray<Package>,
): ReadonlyArray<Violation> => {
  const folderByName = new Map(packages.map(({ name, folder }) => [name, folder]));
  const ofImports = files.flatMap(({ path, text }) =>
    importsOf(text).flatMap(({ specifier }) => {
      if (specifier.startsWith(".")) return relativeProblem(path, specifier);
      const target = folderByName.get(packageOf(specifier) ?? "");
      return target === undefined ? [] : libProblem(path, target);
    }),
  );
  const ofPackages = packages.flatMap(({ folder, dependencies }) =>
    dependencies.flatMap((name) => libProblem(`${folder}/package.json`, folderByName.get(name) ?? "")),
  );
  return [...ofImports, ...ofPackages];
};

const relativeProblem = (path: string, specifier: string): ReadonlyArray<Violation> => {
  const target = join(dirname(path), specifier);
  const inPackage = /^(libs|services)\//.test(path);
  if (!inPackage || isTest(path) || folderOf(target) === folderOf(path) || target.startsWith(`${SHARED_FOLDER}/`))
    return [];
  return [{ path, problem: `reaches into ${target}: import the package by its name` }];
};

/** `target` is the folder of the package that `path` imports; of the importer's own nothing is said. */
const libProblem = (path: string, target: string): ReadonlyArray<Violation> => {
  const own = folderOf(path);
  if (!own.startsWith("libs/") || target === own || target === "") return [];
  if (target.startsWith("services/")) return [{ path, problem: `a lib imports the service ${target}` }];
  const rank = (folder: string): number => LIB_ORDER.indexOf(folder.slice("libs/".length));
  if (rank(own) < 0) return [{ path, problem: `${own} has no place in LIB_ORDER` }];
  if (rank(target) < 0) return [{ path, problem: `${target} has no place in LIB_ORDER` }];
  return rank(target) < rank(own) ? [] : [{ path, problem: `${own} imports ${target}, which stands above it` }];
};
