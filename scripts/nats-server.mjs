// Where a nats-server binary can be had from when the machine has none: the project's releases, then Debian's archive.
// Nothing is installed: a binary is unpacked into the directory given. Plain JavaScript for any Node >= 18.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

/** The release that is downloaded; its digests are those of the official container images (nats-io/nats-docker). */
const RELEASE = {
  version: "2.12.15",
  sha256: {
    amd64: "58ab8131f819263897e2fc38e503e1b755b63bcafeecc7d12582487df48ca15e",
    arm64: "b724db99fefbf8f5c808baa82819ee50350aee9734017e4a478f7e545cef3ab6",
  },
};
/** HTTPS is what authenticates the package index, whose SHA256 then authenticates the package. */
const DEBIAN = "https://deb.debian.org/debian";
const DEBIAN_SUITES = ["sid", "trixie"];

/** Silence of a server we have not heard from, ms: on many networks packets to the outside vanish without an answer. */
const FIRST_ANSWER_MS = 6_000;
/** A whole download, ms: the package index has 15 MB. */
const DOWNLOAD_MS = 180_000;

/** The largest answer that is taken, bytes: Debian's index has 15 MB and grows slowly. */
const DOWNLOAD_BYTES = 128 * 2 ** 20;

/** A child's complaints belong in the error, not on the operator's screen. */
const QUIET = { stdio: ["ignore", "ignore", "pipe"] };

const ARCHITECTURES = { x64: "amd64", arm64: "arm64" };

/** The name that Go and Debian have for this machine's architecture. */
function architecture() {
  const name = ARCHITECTURES[process.arch];
  if (process.platform !== "linux" || name === undefined) {
    throw new Error(`no nats-server is known for ${process.platform}/${process.arch}`);
  }
  return name;
}

/** The bytes at `url`. Node's own client knows neither proxies nor the system's certificates; curl, where it is installed, does. */
async function bytesOf(url) {
  try {
    return await fetched(url);
  } catch (error) {
    const limits = ["--connect-timeout", String(FIRST_ANSWER_MS / 1000), "--max-time", String(DOWNLOAD_MS / 1000)];
    const curl = spawnSync("curl", ["-fsSL", ...limits, url], { maxBuffer: DOWNLOAD_BYTES });
    if (curl.status === 0) return curl.stdout;
    const complaint = curl.error === undefined ? `; ${curl.stderr.toString().trim()}` : "";
    throw new Error(`${url}: ${error.cause?.message ?? error.message}${complaint}`);
  }
}

/** The first answer may take FIRST_ANSWER_MS, everything DOWNLOAD_MS. */
async function fetched(url) {
  const aborter = new AbortController();
  const giveUp = (ms) => setTimeout(() => aborter.abort(new Error(`nothing within ${ms} ms`)), ms);
  const whole = giveUp(DOWNLOAD_MS);
  const firstAnswer = giveUp(FIRST_ANSWER_MS);
  try {
    const response = await fetch(url, { signal: aborter.signal });
    clearTimeout(firstAnswer);
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return Buffer.from(await response.arrayBuffer());
  } finally {
    clearTimeout(firstAnswer);
    clearTimeout(whole);
  }
}

async function download(url, sha256) {
  const bytes = await bytesOf(url);
  const digest = createHash("sha256").update(bytes).digest("hex");
  if (digest !== sha256) throw new Error(`${url}: SHA256 is ${digest}, expected ${sha256}`);
  return bytes;
}

/**
 * Unpacks in a temporary directory and renames the binary at the end: whoever looks meanwhile, or does the same at the same
 * time, sees a whole binary or none.
 */
function install(directory, unpack) {
  mkdirSync(directory, { recursive: true });
  const temporary = mkdtempSync(join(directory, "unpack-"));
  try {
    const path = join(directory, "nats-server");
    renameSync(unpack(temporary), path);
    return path;
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

/** The official release, pinned by digest. */
export async function fromRelease(cache) {
  const arch = architecture();
  const { version } = RELEASE;
  const name = `nats-server-v${version}-linux-${arch}`;
  const url = `https://github.com/nats-io/nats-server/releases/download/v${version}/${name}.tar.gz`;
  const archive = await download(url, RELEASE.sha256[arch]);
  return install(join(cache, `nats-server-${version}`), (directory) => {
    execFileSync("tar", ["-xzf", "-", "-C", directory], { input: archive });
    return join(directory, name, "nats-server");
  });
}

/** The newest package of Debian's archive. */
export async function fromDebian(cache, log) {
  const failures = [];
  for (const suite of DEBIAN_SUITES) {
    try {
      log(`nats-server: reading Debian's package index (${suite})`);
      const found = await debianPackage(suite, architecture());
      log(`nats-server: downloading ${found.path}`);
      const archive = await download(`${DEBIAN}/${found.path}`, found.sha256);
      // "2.15.1-1" and "1:2.10.27-1+b2" are versions 2.15.1 and 2.10.27 of the program.
      const version = found.version.replace(/^\d+:/, "").replace(/[-+~].*$/, "");
      return install(join(cache, `nats-server-${version}`), (directory) => unpackDeb(archive, directory));
    } catch (error) {
      failures.push(`${suite}: ${error.message}`);
    }
  }
  throw new Error(failures.join("; "));
}

/** The fields of nats-server's stanza in the index of a suite. */
async function debianPackage(suite, arch) {
  const url = `${DEBIAN}/dists/${suite}/main/binary-${arch}/Packages.gz`;
  const index = gunzipSync(await bytesOf(url));
  const start = index.indexOf("\nPackage: nats-server\n") + 1;
  const stanza = index.toString("utf8", start, start === 0 ? 0 : index.indexOf("\n\n", start));
  const field = (name) => new RegExp(`^${name}: (\\S+)$`, "m").exec(stanza)?.[1];
  const found = { version: field("Version"), path: field("Filename"), sha256: field("SHA256") };
  if (!found.version || !found.path || !found.sha256) throw new Error(`${url} has no nats-server`);
  return found;
}

function unpackDeb(archive, directory) {
  const file = join(directory, "package.deb");
  writeFileSync(file, archive);
  try {
    // dpkg-deb decompresses by itself; without it `tar` needs the xz or zstd program.
    execFileSync("dpkg-deb", ["-x", file, directory], QUIET);
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    const { name, data } = dataMember(archive);
    const tar = join(directory, name);
    writeFileSync(tar, data);
    execFileSync("tar", ["-xf", tar, "-C", directory], QUIET);
  }
  return join(directory, "usr", "sbin", "nats-server");
}

/** A .deb is an `ar` archive: 8 bytes of magic, then members of a 60-byte header and data padded to an even length. */
function dataMember(archive) {
  for (let offset = 8; offset + 60 <= archive.length; ) {
    const name = archive.toString("latin1", offset, offset + 16).replace(/\/?\s*$/, "");
    const length = Number(archive.toString("latin1", offset + 48, offset + 58));
    if (!Number.isSafeInteger(length)) break;
    if (/^data\.tar(\.\w+)?$/.test(name)) return { name, data: archive.subarray(offset + 60, offset + 60 + length) };
    offset += 60 + length + (length % 2);
  }
  throw new Error("the package holds no data.tar");
}
