/** Tables that read well in a terminal and can be pasted into a README as they are. */

export interface Table {
  readonly titles: ReadonlyArray<string>;
  readonly rows: ReadonlyArray<ReadonlyArray<string>>;
}

/** Columns but the first are numbers, and stand right. Ends with a line end. */
export const markdownTable = ({ titles, rows }: Table): string => {
  const lines = [titles, ...rows];
  const widths = titles.map((_, column) => Math.max(3, ...lines.map((cells) => (cells[column] ?? "").length)));
  const line = (cells: ReadonlyArray<string>): string =>
    `| ${widths.map((width, at) => (at === 0 ? (cells[at] ?? "").padEnd(width) : (cells[at] ?? "").padStart(width))).join(" | ")} |\n`;
  const rule = widths.map((width, at) => (at === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`));
  return line(titles) + line(rule) + rows.map(line).join("");
};
