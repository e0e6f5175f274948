/** Huge pages of this machine for tests and measurements: reserved and mounted for as long as they are needed. Linux, root. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";

export const HUGE_BYTES = 2 * 1024 ** 2;
const POOL = "/proc/sys/vm/nr_hugepages";

const poolPages = (): number => Number(readFileSync(POOL, "utf8"));

/** Adds so many pages to the kernel's pool; the result takes them away again. Throws, and takes nothing, where it cannot have them. */
export const reserveHugePages = (pages: number): (() => void) => {
  const before = poolPages();
  const release = (): void => writeFileSync(POOL, String(before));
  writeFileSync(POOL, String(before + pages));
  const have = poolPages();
  if (have >= before + pages) return release;
  release();
  throw new Error(`the kernel gave ${have - before} huge pages of ${pages}`);
};

/** Why this user cannot have so many huge pages and a file system of them; null when he can: root on a host with memory to spare. */
export const hugePagesObstacle = (pages: number): string | null => {
  if (process.getuid?.() !== 0) return "only root can mount hugetlbfs";
  if (!existsSync(POOL)) return `the kernel has no ${POOL}`;
  try {
    reserveHugePages(pages)();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
};

/** Mounts a file system of huge pages at `directory`, which is made; the result takes it away, once nobody uses it any more. */
export const mountHugePages = (directory: string): (() => void) => {
  mkdirSync(directory, { recursive: true });
  execFileSync("mount", ["-t", "hugetlbfs", "-o", `pagesize=${HUGE_BYTES}`, "none", directory]);
  return () => void execFileSync("umount", ["-l", directory]);
};
