// A lock between processes: a file that exists while someone holds it. Plain JavaScript for any Node >= 18.
//
// The file names its holder, so that a holder that was killed is noticed at once; and the holder touches it every BEAT_MS,
// so that it is noticed also from another container or host that shares the folder, and when its process id is taken again.
import { mkdirSync, readFileSync, readlinkSync, rmdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

/** How often the holder shows that it lives, ms. */
const BEAT_MS = 2_000;
/** Silence after which a holder counts as dead, ms: a busy or suspended machine must not lose its lock. */
const DEAD_MS = 60_000;
/** How often a waiting process looks, ms. */
const POLL_MS = 100;

/** Runs `work` while holding `path`; `waiting(pid)` is called once when another process was first. */
export async function withLock(path, waiting, work) {
  let announced = false;
  while (!acquire(path)) {
    const holder = holderOf(path);
    if (holder === undefined) continue; // Released between the two looks.
    if (isDead(holder)) removeDead(path);
    else if (!announced) {
      waiting(holder.pid);
      announced = true;
    }
    await sleep(POLL_MS);
  }
  const beat = setInterval(() => utimesSync(path, new Date(), new Date()), BEAT_MS);
  try {
    return await work();
  } finally {
    clearInterval(beat);
    rmSync(path, { force: true });
  }
}

function acquire(path) {
  try {
    writeFileSync(path, `${process.pid} ${processIdSpace()}`, { flag: "wx" });
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
  }
}

/** Process ids mean something only among the processes that see the same ones. */
function processIdSpace() {
  return `${hostname()} ${readlinkSync("/proc/self/ns/pid")}`;
}

/** Who holds the lock, or undefined when nobody does. */
function holderOf(path) {
  try {
    const [, pid, space] = /^(\d+) (.*)$/.exec(readFileSync(path, "utf8")) ?? [];
    return { pid: Number(pid), space, silentMs: Date.now() - statSync(path).mtimeMs };
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
}

function isDead({ pid, space, silentMs }) {
  return silentMs > DEAD_MS || (space === processIdSpace() && !isAlive(pid));
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code !== "ESRCH"; // EPERM: alive, and somebody else's.
  }
}

/** Removes a dead holder's file. One process at a time may do so, or a second would remove the first one's new lock. */
function removeDead(path) {
  const guard = `${path}.removal`;
  try {
    mkdirSync(guard);
  } catch (error) {
    if (error.code === "EEXIST") return; // Another process is at it.
    throw error;
  }
  try {
    const holder = holderOf(path);
    if (holder !== undefined && isDead(holder)) rmSync(path, { force: true });
  } finally {
    rmdirSync(guard);
  }
}
