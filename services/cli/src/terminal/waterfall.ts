/** Where a downtime went, drawn: a line for each part, its bar at the time at which it went on. */
import { formatCount } from "./format.ts";
import { type Column, table } from "./table.ts";

/** Times in us since the guest was stopped. */
export interface WaterfallLine {
  readonly part: string;
  /** Where it was measured; empty: at neither side alone. */
  readonly side: string;
  /** null: when it was is not known. */
  readonly begin: number | null;
  readonly length: number;
  /** It went on beside others, and is not in the sum. */
  readonly beside: boolean;
}

const COLUMNS: ReadonlyArray<Column> = [
  { title: "PART" },
  { title: "AT" },
  { title: "BEGIN US", align: "right" },
  { title: "US", align: "right" },
  { title: "" },
];
/** With the columns before it, it leaves room in 80 characters for most names. */
const BAR_CHARS = 32;

/** A part that took any time has a mark, however short. */
const bar = ({ begin, length, beside }: WaterfallLine, total: number): string => {
  if (begin === null || total <= 0) return "";
  const place = (us: number): number => Math.min(BAR_CHARS, Math.max(0, Math.round((us / total) * BAR_CHARS)));
  const from = Math.min(place(begin), BAR_CHARS - 1);
  const until = Math.max(place(begin + length), length > 0 ? from + 1 : from);
  return " ".repeat(from) + (beside ? "-" : "#").repeat(until - from);
};

/** Lines without their line ends; none without parts. Bars: `#` in the sum, `-` beside it. */
export const waterfallLines = (lines: ReadonlyArray<WaterfallLine>): ReadonlyArray<string> => {
  if (lines.length === 0) return [];
  const total = lines.reduce((end, { begin, length }) => Math.max(end, (begin ?? 0) + length), 0);
  const rows = lines.map((line) => [
    line.part,
    line.side,
    line.begin === null ? "" : formatCount(line.begin),
    formatCount(line.length),
    bar(line, total),
  ]);
  return table(COLUMNS, rows).trimEnd().split("\n");
};
