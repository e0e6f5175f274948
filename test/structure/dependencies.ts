import { importsOf, packageOf, withoutComments } from "./source-text.ts";
import { isTest, type Package, type SourceFile, type Violation } from "./source-tree.ts";

/** What a package's files import is in its package.json, and what is there is imported. Tests may use the root's tools as well. */
export const dependencyViolations = (
  files: ReadonlyArray<SourceFile>,
  packages: ReadonlyArray<Package>,
): ReadonlyArray<Violation> => {
  const tools = packages.find(({ folder }) => folder === ".")?.devDependencies ?? [];
  const workspaces = packages.filter(({ folder }) => folder !== ".");
  return [
    ...workspaces.flatMap((workspace) => workspaceViolations(workspace, files, tools)),
    ...crossingTestViolations(files, workspaces, tools),
  ];
};

const workspaceViolations = (
  { folder, name, dependencies }: Package,
  files: ReadonlyArray<SourceFile>,
  tools: ReadonlyArray<string>,
): ReadonlyArray<Violation> => {
  const own = files.filter(({ path }) => path.startsWith(`${folder}/`));
  const used = new Set<string>();
  const undeclared = own.flatMap((file) =>
    packagesImportedBy(file).flatMap((imported) => {
      used.add(imported);
      const known =
        imported === name || dependencies.includes(imported) || (isTest(file.path) && tools.includes(imported));
      return known
        ? []
        : [{ path: file.path, problem: `imports ${imported}, which ${folder}/package.json does not name` }];
    }),
  );
  const unused = dependencies
    .filter((dependency) => !used.has(dependency) && !own.some((file) => isResolvedBy(file, dependency)))
    .map((dependency) => ({
      path: `${folder}/package.json`,
      problem: `names ${dependency}, which nothing there uses`,
    }));
  return [...undeclared, ...unused];
};

/** A program that is started, not imported, is named in a text that is resolved: `"@godwit/loader/main"`. */
const isResolvedBy = ({ text }: SourceFile, dependency: string): boolean =>
  ['"', "'"].some((quote) => withoutComments(text).includes(`${quote}${dependency}/`));

/** Tests in `test/` cross packages, and take what those packages take. */
const crossingTestViolations = (
  files: ReadonlyArray<SourceFile>,
  workspaces: ReadonlyArray<Package>,
  tools: ReadonlyArray<string>,
): ReadonlyArray<Violation> => {
  const known = new Set([...tools, ...workspaces.flatMap(({ name, dependencies }) => [name, ...dependencies])]);
  return files
    .filter(({ path }) => path.startsWith("test/"))
    .flatMap((file) =>
      packagesImportedBy(file)
        .filter((imported) => !known.has(imported))
        .map((imported) => ({ path: file.path, problem: `imports ${imported}, which no package.json names` })),
    );
};

const packagesImportedBy = ({ text }: SourceFile): ReadonlyArray<string> => [
  ...new Set(importsOf(text).flatMap(({ specifier }) => packageOf(specifier) ?? [])),
];

/** Every package that is not ours, by name. */
export const foreignDependencies = (packages: ReadonlyArray<Package>): ReadonlyArray<string> => {
  const ours = new Set(packages.map(({ name }) => name));
  const all = packages.flatMap((p) => [...p.dependencies, ...p.devDependencies, ...p.optionalDependencies]);
  return [...new Set(all)].filter((name) => !ours.has(name)).sort();
};
