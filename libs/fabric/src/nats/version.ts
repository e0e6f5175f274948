/** Below it a replicated bucket lets two compare-and-sets win, and process kills can lose streams. */
export const NATS_VERSION_MIN = "2.10.23";

/** Whether the server's version, as its INFO line gives it, is NATS_VERSION_MIN or later; a text that is no version is not. */
export function isSupportedVersion(version: string): boolean {
  const given = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version)?.slice(1).map(Number);
  if (given === undefined) return false;
  const least = NATS_VERSION_MIN.split(".").map(Number);
  for (const [i, number] of given.entries()) {
    const bound = least[i] ?? 0;
    if (number !== bound) return number > bound;
  }
  return true;
}
