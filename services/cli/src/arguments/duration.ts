const UNIT_MS = new Map([
  ["", 1],
  ["ms", 1],
  ["s", 1000],
  ["m", 60_000],
  ["min", 60_000],
  ["h", 3_600_000],
]);

/** Reads `300ms`, `1.5s`, `2m`, `1h`, or a number of ms; null when it is none of them. Parts of a ms are cut off. */
export const parseDuration = (text: string): number | null => {
  const match = /^(?<number>\d+(?:\.\d+)?) ?(?<unit>[a-z]*)$/i.exec(text.trim());
  const factor = UNIT_MS.get(match?.groups?.["unit"]?.toLowerCase() ?? "none");
  if (match === null || factor === undefined) return null;
  const ms = Math.floor(Number(match.groups?.["number"]) * factor);
  return Number.isSafeInteger(ms) ? ms : null;
};
