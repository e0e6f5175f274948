/** `waterfall` of query-migrate as the terminal shows it: parts in the order of their begin, what went on beside others behind them. */
import type { Waterfall } from "@godwit/protocol";
import type { WaterfallLine } from "../terminal/waterfall.ts";

export const waterfallOf = (waterfall: Waterfall | undefined): ReadonlyArray<WaterfallLine> => {
  if (waterfall === undefined) return [];
  const lines = waterfall.parts.map(
    ({ part, side, begin, length, beside, device }): WaterfallLine => ({
      part: device === undefined ? part : `${device}: ${part}`,
      side,
      begin,
      length,
      beside: beside === true,
    }),
  );
  const { rest } = waterfall;
  return [
    ...lines.filter(({ beside }) => !beside),
    ...(rest === undefined ? [] : [{ part: "rest (messages)", side: "", begin: null, length: rest, beside: false }]),
    ...lines.filter(({ beside }) => beside),
  ];
};
