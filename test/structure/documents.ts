import { dirname, join } from "node:path/posix";
import type { SourceFile, Violation } from "./source-tree.ts";

/** A dependency that a document which explains them does not name. `name` must stand alone: `pino` is not in `pinout`. */
export const unexplainedDependencies = (
  document: SourceFile,
  dependencies: ReadonlyArray<string>,
): ReadonlyArray<Violation> =>
  dependencies
    .filter((name) => !new RegExp(`(?<![\\w@/-])${name.replaceAll(".", "\\.")}(?![\\w-])`).test(document.text))
    .map((name) => ({ path: document.path, problem: `does not say why ${name} is there` }));

/** npm's own words beside the names of scripts. */
const NPM_SCRIPT = /\bnpm (?:run(?:-script)?(?: -s| --silent)? ([\w:.-]+)|(test|start|stop)\b)/g;

/** Commands that a reader would copy and that do not exist. */
export const unknownCommands = (document: SourceFile, scripts: ReadonlyArray<string>): ReadonlyArray<Violation> =>
  [...document.text.matchAll(NPM_SCRIPT)]
    .map((match) => match[1] ?? match[2] ?? "")
    .filter((script) => !scripts.includes(script))
    .map((script) => ({ path: document.path, problem: `\`npm run ${script}\` is no script of package.json` }));

const LINK = /\]\((?!\w+:|#)([^)#\s]+)(?:#[^)]*)?\)/g;

/** Links to files that do not exist. `exists` takes a path relative to the root. */
export const deadLinks = (document: SourceFile, exists: (path: string) => boolean): ReadonlyArray<Violation> =>
  [...document.text.matchAll(LINK)]
    .map(([, target = ""]) => join(dirname(document.path), target))
    .filter((target) => !exists(target))
    .map((target) => ({ path: document.path, problem: `links to ${target}, which does not exist` }));
