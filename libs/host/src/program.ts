/** Programs of ours, which are started as processes or threads of their own: built where there is a build, else from their source. */
import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const BUILT = join(ROOT, ".cache", "programs");

/**
 * The file to run for the program whose source is `source` (a file URL below this checkout). Built ones start in a third of the time. They are
 * used only when GODWIT_PROGRAMS names their folder: whoever sets it has made sure that they are of the sources as they stand (scripts/programs.mjs).
 * The variable of another checkout, whose build is another one, means nothing here.
 */
export const programFile = (source: URL): string => {
  const path = fileURLToPath(source);
  const built = join(BUILT, relative(ROOT, path).replace(/\.ts$/, ".js"));
  return process.env["GODWIT_PROGRAMS"] === BUILT && existsSync(built) ? built : path;
};
