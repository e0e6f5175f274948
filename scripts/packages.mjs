// Installs node_modules exactly as package-lock.json says, once, however many processes ask for it at the same time.
// Plain JavaScript for any Node >= 18, without dependencies.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { accessSync, constants, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { exitOf } from "./child.mjs";
import { withLock } from "./lock.mjs";

export const ROOT = fileURLToPath(new URL("..", import.meta.url));

const LOCKFILE = join(ROOT, "package-lock.json");
const MODULES = join(ROOT, "node_modules");
/** Inside node_modules, so that it goes with what it vouches for. */
const STAMP = join(MODULES, ".godwit-setup");
export const CACHE = join(ROOT, ".cache");

/**
 * What an npm that runs us (`npm -w x run y`, `npm run demo --json`) would pass on to the inner one through the
 * environment, and that would make it install something else or say it in another way.
 */
const FOREIGN_SETTINGS =
  /^npm_config_(workspaces?|include_workspace_root|global|location|local_prefix|prefix|dry_run|json)$/i;

/** npm says this for every package when it runs on a Node older than the pinned one; nothing is wrong then. */
const NOISE = /^npm warn EBADENGINE/i;

/** True when node_modules holds what package-lock.json asks for, on this architecture. */
export function packagesAreInstalled() {
  const lock = readFileSync(LOCKFILE);
  const stamp = stampFor(lock);
  if (read(STAMP) === stamp) return true;
  if (!matchesLockfile(JSON.parse(lock.toString()))) return false;
  // `npm install` or `npm ci` was run by hand and got it right: remember that.
  writeStamp(stamp);
  return true;
}

/** Runs `npm ci`; a second process that asks meanwhile waits for the first. Throws when npm fails. */
export async function installPackages(log) {
  try {
    mkdirSync(CACHE, { recursive: true });
    accessSync(ROOT, constants.W_OK);
    accessSync(CACHE, constants.W_OK);
  } catch (error) {
    throw new Error(
      `the packages are not installed, and ${ROOT} cannot be written to (${error.code}).\n` +
        "Run `node scripts/setup.mjs` once as the owner of that folder, or clone into a folder of your own.",
    );
  }
  const lock = join(CACHE, "setup.lock");
  const waiting = (holder) => log(`godwit setup: waiting for process ${holder}, which installs the packages (${lock})`);
  await withLock(lock, waiting, async () => {
    // Whoever held the lock before may have done it.
    if (packagesAreInstalled()) return;
    log("godwit setup: installing packages (npm ci)");
    await npmCi(log);
    writeStamp(stampFor(readFileSync(LOCKFILE)));
  });
}

const stampFor = (lock) => `${createHash("sha256").update(lock).digest("hex")} ${process.platform}-${process.arch}\n`;

function writeStamp(stamp) {
  try {
    writeFileSync(STAMP, stamp);
  } catch (error) {
    // A clone that another user has set up: without a stamp the next start is some milliseconds slower, no more.
    if (error.code !== "EACCES" && error.code !== "EROFS" && error.code !== "EPERM") throw error;
  }
}

/** Compares the lockfile with the record that npm leaves in node_modules as the last act of an installation. */
function matchesLockfile(lock) {
  const record = read(join(MODULES, ".package-lock.json"));
  if (record === undefined) return false;
  const installed = JSON.parse(record).packages;
  return Object.entries(lock.packages).every(([path, wanted]) => {
    if (path === "" || !path.includes("node_modules/")) return true; // The project itself and its workspaces.
    const found = installed[path];
    // Packages for other platforms are optional and absent. Those for ours are optional for npm only.
    if (found === undefined) return wanted.optional === true && !path.endsWith(`linux-${process.arch}`);
    return found.version === wanted.version && found.link === wanted.link;
  });
}

async function npmCi(log) {
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !FOREIGN_SETTINGS.test(name)));
  const [program, ...first] = npm();
  const child = spawn(
    program,
    [
      ...first,
      "ci",
      "--loglevel=warn", // The project's .npmrc silences npm, for the sake of stdout.
      "--include=dev",
      "--include=optional", // Whatever NODE_ENV or the user's .npmrc omit: the pinned Node is an optional package.
      "--ignore-scripts", // No package here needs its install script.
      "--no-audit",
      "--no-fund",
      "--no-progress",
      "--no-update-notifier",
      ...cacheOption(log),
    ],
    { cwd: ROOT, env: environment, stdio: ["ignore", "pipe", "pipe"] },
  );
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      if (!NOISE.test(line) && line !== "") log(line);
    });
  }
  let exit;
  try {
    exit = await exitOf(child);
  } catch (error) {
    throw new Error(error.code === "ENOENT" ? "npm was not found in PATH; install Node.js with npm" : error.message);
  }
  if (exit !== 0) {
    throw new Error(
      `npm ci ended with exit code ${exit}; what it said is above.\n` +
        "Check the network, the proxy and the registry (`npm ping`), then try again.",
    );
  }
}

/** The npm that runs us, with the Node it runs on (PATH may name the pinned one, which `npm ci` is about to replace); else PATH's. */
function npm() {
  const { npm_execpath: script, npm_node_execpath: node } = process.env;
  return script && node && basename(script) === "npm-cli.js" ? [node, script] : ["npm"];
}

/** npm fails without a cache it can write to: service users often have no home of their own. */
function cacheOption(log) {
  const usual = process.env.npm_config_cache ?? process.env.NPM_CONFIG_CACHE ?? join(homedir(), ".npm");
  if (canBeMade(usual)) return [];
  const own = join(CACHE, "npm");
  log(`godwit setup: ${usual} cannot be written to, npm's cache goes to ${own}`);
  return ["--cache", own];
}

/** True when `path` is a folder we may write to, or could be made as one. */
function canBeMade(path) {
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
    return true;
  } catch (error) {
    return error.code === "ENOENT" && dirname(path) !== path && canBeMade(dirname(path));
  }
}

/** What a file vouches for; undefined when there is none. */
export function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // Not there, or not ours to read: both mean that it vouches for nothing.
  }
}
