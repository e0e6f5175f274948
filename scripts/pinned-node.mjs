// The Node.js this project runs on: a package of its own lockfile, whatever Node the machine has.
// Plain JavaScript for any Node >= 18, without dependencies.
import { execFileSync, spawn } from "node:child_process";
import { existsSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { exitOf } from "./child.mjs";
import { ROOT } from "./packages.mjs";

/** The first that runs TypeScript without a flag and has Zstandard in its `zlib`. */
const MAJOR_MIN = 24;
const ARCHITECTURES = ["x64", "arm64"];

const PACKAGE = `node-linux-${process.arch}`;
/** The pinned Node.js; it is there once `setUp` has passed. */
export const PINNED_NODE = join(ROOT, "node_modules", PACKAGE, "bin", "node");
/** Where npm's scripts find it: npm puts this folder first in their PATH. */
const LINK = join(ROOT, "node_modules", ".bin", "node");

/** Throws on a machine that godwit does not run on. */
export function checkPlatform() {
  if (process.platform === "linux" && ARCHITECTURES.includes(process.arch)) return;
  throw new Error(
    `this machine is ${process.platform}/${process.arch}; godwit runs on Linux on x64 or arm64.\n` +
      "Use such a machine, a virtual machine or a Linux container.",
  );
}

/** Throws unless the pinned Node.js is there, is found by npm's scripts, runs, and is new enough. */
export function checkPinnedNode() {
  if (!existsSync(PINNED_NODE)) {
    throw new Error(
      `${PINNED_NODE} is missing: npm left out the optional package ${PACKAGE}.\n` +
        `Check that the registry has it (\`npm view ${PACKAGE} versions\`), then run \`npm ci --include=optional\`.`,
    );
  }
  if (!existsSync(LINK)) link();
  let version;
  try {
    version = execFileSync(PINNED_NODE, ["--version"], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim();
  } catch (error) {
    throw new Error(
      `${PINNED_NODE} does not run: ${(error.stderr || error.message).trim()}\n` +
        "It needs a system with glibc (Alpine and other musl systems have none) and a folder that allows programs.",
    );
  }
  if (Number.parseInt(version.slice(1), 10) >= MAJOR_MIN) return;
  throw new Error(
    `${PINNED_NODE} is ${version}; godwit needs Node.js ${MAJOR_MIN} or later.\n` +
      "Delete node_modules and run `node scripts/setup.mjs`.",
  );
}

/** npm 10 drops the link that both architectures' packages ask for when it drops the package of the other architecture. */
function link() {
  try {
    rmSync(LINK, { force: true }); // A link to what is no longer there.
    symlinkSync(join("..", PACKAGE, "bin", "node"), LINK);
  } catch (error) {
    if (error.code === "EEXIST") return; // Another process was faster.
    throw new Error(
      `${LINK} is missing and cannot be made (${error.code}); run \`node scripts/setup.mjs\` as the owner.`,
    );
  }
}

/** Runs a program of this project under the pinned Node.js with our own stdin, stdout and stderr; resolves to its exit code. */
export function runPinned(script, args) {
  // Every actor is a process of its own: compiled code that is kept saves each of them about 70 ms of its start.
  const environment = { NODE_COMPILE_CACHE: join(ROOT, ".cache", "compiled"), ...process.env };
  return exitOf(spawn(PINNED_NODE, [script, ...args], { stdio: "inherit", env: environment }));
}
