export { formatBytes, formatCount, formatMs, formatPercent, formatRate } from "./format.ts";
export { endProgress, nothingShown, type Screen, type Shown, showProgress } from "./live-line.ts";
export { type Progress, progressBar, progressLine } from "./progress.ts";
export { type ParsedSize, parseSize } from "./size.ts";
export { renderSummary, type Summary } from "./summary.ts";
export { type Align, type Column, table } from "./table.ts";
