/** What an operator's size means, or why it means nothing. */
export type ParsedSize =
  | { readonly _tag: "Size"; readonly bytes: number }
  | { readonly _tag: "BadSize"; readonly reason: string };

/** Powers of 1024 may be written as QEMU does (`512M`) or in full (`512MiB`); `MB` is the decimal unit, as everywhere else. */
const FACTORS = new Map([
  ["", 1],
  ["b", 1],
  ["k", 1024],
  ["kib", 1024],
  ["kb", 1000],
  ["m", 1024 ** 2],
  ["mib", 1024 ** 2],
  ["mb", 1000 ** 2],
  ["g", 1024 ** 3],
  ["gib", 1024 ** 3],
  ["gb", 1000 ** 3],
  ["t", 1024 ** 4],
  ["tib", 1024 ** 4],
  ["tb", 1000 ** 4],
]);

const bad = (text: string, why: string): ParsedSize => ({
  _tag: "BadSize",
  reason: `${JSON.stringify(text)} ${why}; write for example 512MiB, 1.5GiB, 50MiB/s or a number of bytes`,
});

/** Reads a size in bytes, or a rate in bytes per second (`50MiB/s`). A fraction of a byte is cut off. */
export const parseSize = (text: string): ParsedSize => {
  const match = /^(?<number>\d+(?:\.\d+)?) ?(?<unit>[a-z]*)(?:\/s)?$/i.exec(text.trim());
  if (match === null) return bad(text, text.trim().startsWith("-") ? "is negative" : "is not a size");
  const { number = "", unit = "" } = match.groups ?? {};
  const factor = FACTORS.get(unit.toLowerCase());
  if (factor === undefined) return bad(text, `has the unknown unit ${JSON.stringify(unit)}`);
  const bytes = Math.floor(Number(number) * factor);
  return Number.isSafeInteger(bytes) ? { _tag: "Size", bytes } : bad(text, "is too large");
};
