/** Numbers read best when their last figures stand below each other. */
export type Align = "left" | "right";

export interface Column {
  readonly title: string;
  readonly align?: Align;
}

/** Spaces between two columns. */
const GAP = "  ";

/** Characters that a terminal shows beside each other; combining ones are not counted, wide ones count as one. */
const width = (text: string): number => [...text.normalize("NFC")].length;

/** Rows below their titles, each cell as wide as its column's widest; without trailing spaces. Ends with a line end. */
export const table = (columns: ReadonlyArray<Column>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const lines = [columns.map((column) => column.title), ...rows];
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => width(line[index] ?? ""))));
  const cell = (text: string, index: number): string => {
    const padding = " ".repeat((widths[index] ?? 0) - width(text));
    return columns[index]?.align === "right" ? padding + text : text + padding;
  };
  return lines
    .map((line) => columns.map((_, index) => cell(line[index] ?? "", index)).join(GAP))
    .map((line) => `${line.trimEnd()}\n`)
    .join("");
};
