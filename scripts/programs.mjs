// The built programs of a clone: each actor, the command line, guests and devices as one file and what they share, in
// .cache/programs. A process that has them starts in a third of the time that 600 source files take, and godwit is many
// processes, of which one that was killed is waited for. Plain JavaScript for any Node >= 18, without dependencies.
//
// GODWIT_PROGRAMS names the folder to whoever starts programs (libs/host/src/program.ts). Only code that has made sure here
// that they are of the sources as they stand now may set it; without it the sources themselves are run.
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { accessSync, constants, existsSync, mkdirSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { withLock } from "./lock.mjs";
import { CACHE, ROOT, read } from "./packages.mjs";
import { PINNED_NODE } from "./pinned-node.mjs";

const PROGRAMS = join(CACHE, "programs");
const STAMP = join(PROGRAMS, "stamp");

/**
 * Builds them unless they are there, and names them in GODWIT_PROGRAMS for the processes that this one starts.
 * A clone of somebody else that has none runs its sources. Throws when they cannot be built.
 */
export async function providePrograms(log) {
  if (read(STAMP) !== stampOfSources()) {
    if (!isWritable()) {
      delete process.env.GODWIT_PROGRAMS;
      return;
    }
    const waiting = (holder) => log(`godwit setup: waiting for process ${holder}, which builds the programs`);
    await withLock(join(CACHE, "programs.lock"), waiting, build);
  }
  process.env.GODWIT_PROGRAMS = PROGRAMS;
}

/** The file to run for a program, named by its path below the clone without an ending; as libs/host/src/program.ts does it. */
export function programPath(program) {
  const built = join(PROGRAMS, `${program}.js`);
  return process.env.GODWIT_PROGRAMS === PROGRAMS && existsSync(built) ? built : join(ROOT, `${program}.ts`);
}

async function build() {
  const stamp = stampOfSources();
  // Whoever held the lock before may have done it.
  if (read(STAMP) === stamp) return;
  try {
    await promisify(execFile)(PINNED_NODE, [join(ROOT, "scripts", "build-programs.mjs"), ROOT, PROGRAMS, stamp]);
  } catch (error) {
    throw new Error(`the programs could not be built:\n${error.stderr || error.message}`);
  }
}

/** Paths, sizes and times of all that programs are made of: reading 600 files at each start would cost more than it saves. */
function stampOfSources() {
  const hash = createHash("sha256");
  hash.update(ROOT);
  for (const file of [join(ROOT, "package-lock.json"), join(ROOT, "scripts", "build-programs.mjs"), ...sources()]) {
    const { mtimeMs, size } = statSync(file);
    hash.update(`${file} ${mtimeMs} ${size}\n`);
  }
  return hash.digest("hex");
}

function sources() {
  const packages = ["libs", "services"].flatMap((kind) =>
    readdirSync(join(ROOT, kind)).map((name) => join(ROOT, kind, name)),
  );
  return packages.flatMap((folder) => [join(folder, "package.json"), ...filesBelow(join(folder, "src"))]);
}

function filesBelow(folder) {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return filesBelow(path);
      return entry.name.endsWith(".ts") && !entry.name.endsWith(".test.ts") ? [path] : [];
    });
}

function isWritable() {
  try {
    mkdirSync(CACHE, { recursive: true });
    accessSync(CACHE, constants.W_OK);
    return !existsSync(PROGRAMS) || statSync(PROGRAMS).uid === process.getuid();
  } catch {
    return false;
  }
}
