// Finds a nats-server that godwit can trust its ownership record to, or fetches one into the project's cache.
// Plain JavaScript for any Node >= 18, without dependencies: it runs before anything is set up.
import { execFileSync } from "node:child_process";
import { accessSync, constants, readdirSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { fromDebian, fromRelease } from "./nats-server.mjs";

/** Below this version two compare-and-sets on a replicated bucket can both win, and process kills can lose streams. */
export const MINIMUM_VERSION = "2.10.23";

/** How long `nats-server --version` may take, ms; it is instant unless the machine is very busy. */
const VERSION_MS = 10_000;

const CACHE = fileURLToPath(new URL("../.cache", import.meta.url));

/**
 * The path of a nats-server of MINIMUM_VERSION or later. Looks, in this order, at `$GODWIT_NATS_SERVER`, `$GODWIT_NATS` when
 * that is a file (for everybody else it holds server URLs), PATH, the project's cache, and then downloads: the official
 * release, else Debian's package; `download: false` leaves that out. Never touches the system; needs no privileges.
 *
 * Throws an Error that lists everything that was tried and what the operator can do.
 */
export async function natsServerPath({ log = () => {}, cache = CACHE, download = true } = {}) {
  const tried = [];
  const usable = (path, from) => {
    const problem = unfit(path);
    if (problem === undefined) return true;
    tried.push(`${from}: ${problem}`);
    return false;
  };

  const named = process.env.GODWIT_NATS_SERVER;
  // Named by the operator: using another one instead would be a surprise.
  if (named) {
    if (usable(named, "$GODWIT_NATS_SERVER")) return named;
    throw new Error(advice(tried));
  }
  const maybeUrls = process.env.GODWIT_NATS;
  if (maybeUrls && isExecutable(maybeUrls) && usable(maybeUrls, "$GODWIT_NATS")) return maybeUrls;

  const inPath = (process.env.PATH ?? "").split(delimiter).map((directory) => join(directory, "nats-server"));
  const installed = inPath.filter(isExecutable);
  if (installed.length === 0) tried.push("PATH: no nats-server");
  for (const path of [...installed, ...cached(cache)]) if (usable(path, path)) return path;

  const sources = [
    ["the official release", () => fromRelease(cache)],
    ["Debian's package", () => fromDebian(cache, log)],
  ];
  if (!download) throw new Error(advice(tried));
  for (const [what, obtain] of sources) {
    try {
      log(`nats-server: none of version ${MINIMUM_VERSION} or later here, trying ${what}`);
      const path = await obtain();
      if (usable(path, path)) {
        log(`nats-server: ${path}`);
        return path;
      }
    } catch (error) {
      tried.push(`${what}: ${error.message}`);
    }
  }
  throw new Error(advice(tried));
}

/** Why `path` cannot be used, or undefined. */
function unfit(path) {
  try {
    const text = execFileSync(path, ["--version"], {
      encoding: "utf8",
      timeout: VERSION_MS,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const version = /v?(\d+\.\d+\.\d+)/.exec(text)?.[1];
    if (version === undefined) return `${path} --version says ${JSON.stringify(text.trim())}`;
    if (compareVersions(version, MINIMUM_VERSION) < 0) return `version ${version} is older than ${MINIMUM_VERSION}`;
    return undefined;
  } catch (error) {
    return (error.stderr || error.message).trim();
  }
}

/** Negative when `a` is older than `b`. */
export function compareVersions(a, b) {
  const [left, right] = [a, b].map((version) => version.split(".").map((part) => Number.parseInt(part, 10)));
  for (let i = 0; i < 3; i++) if (left[i] !== right[i]) return left[i] - right[i];
  return 0;
}

/** What earlier runs have left in the cache, newest first. */
function cached(cache) {
  let names;
  try {
    names = readdirSync(cache);
  } catch {
    return []; // No cache yet.
  }
  return names
    .filter((name) => /^nats-server-\d+\.\d+\.\d+$/.test(name))
    .sort((a, b) => compareVersions(b.slice(12), a.slice(12)))
    .map((name) => join(cache, name, "nats-server"))
    .filter(isExecutable);
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false; // Not there, or a URL.
  }
}

function advice(tried) {
  return [
    `no nats-server of version ${MINIMUM_VERSION} or later could be found or fetched:`,
    ...tried.map((line) => `  - ${line}`),
    "Install one (https://docs.nats.io/running-a-nats-service/introduction/installation) so that it is in PATH,",
    "or set GODWIT_NATS_SERVER to its path.",
  ].join("\n");
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    console.log(await natsServerPath({ log: (line) => console.error(line) }));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
