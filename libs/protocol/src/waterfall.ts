/**
 * Where the time went in which a guest stood still: parts with begin and length, in microseconds, as each was measured.
 *
 *     stop               ##
 *     save-device-state    #####
 *     final-sync                ###
 *     send                       ------          beside: it went on while others did
 *     ...
 *
 * Parts that are not `beside` follow each other without a gap at each side; with `rest`, the messages between the two hosts, they add
 * up to `total`. Times of two hosts are never compared: a side measures by its own clock alone, and what the destination has measured
 * is placed between the message that let it begin and the one that told the source of its end (`services/ram-sender`).
 */
import * as Schema from "effect/Schema";
import type { ArcInfo } from "./migration-info.ts";

/** More parts than a switchover has phases at both sides, and arcs of devices that are shown (`WATERFALL_ARCS_MAX` for each side). */
export const WATERFALL_PARTS_MAX = 128;
/** Arcs of devices that one side shows, the longest: a guest with dozens of devices would fill the screen with those that took no time. */
export const WATERFALL_ARCS_MAX = 32;
/** A name of a part, or of a device, characters. */
const NAME_CHARS_MAX = 255;

/** A newer build may measure other parts, so their names are no fixed list. */
export const WaterfallPart = Schema.Struct({
  part: Schema.String.check(Schema.isMaxLength(NAME_CHARS_MAX)),
  /** Where it was measured. */
  side: Schema.Literals(["source", "destination"]),
  /** Since the switchover began, us. */
  begin: Schema.Finite,
  /** us */
  length: Schema.Finite,
  /** It went on beside other parts, and is not in the sum. */
  beside: Schema.optionalKey(Schema.Literal(true)),
  /** Whose arc it is. */
  device: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(NAME_CHARS_MAX))),
});
export type WaterfallPart = typeof WaterfallPart.Type;

export const Waterfall = Schema.Struct({
  parts: Schema.Array(WaterfallPart).check(Schema.isMaxLength(WATERFALL_PARTS_MAX)),
  /** From the first part's begin to the guest running, us; absent: it does not run yet, or nobody has measured it. */
  total: Schema.optionalKey(Schema.Finite),
  /** What of `total` no part holds, us: the messages by which the destination was told and told, on their way. */
  rest: Schema.optionalKey(Schema.Finite),
});
export type Waterfall = typeof Waterfall.Type;

/** How long parts of that name took, together, us; 0: there is none. */
export const lengthOf = ({ parts }: Waterfall, name: string): number =>
  parts.reduce((sum, { part, length }) => sum + (part === name ? length : 0), 0);

/** What one side does, one part after the other; times in us of its host's monotonic clock. */
export interface Laps {
  readonly begun: Array<{ readonly part: string; readonly at: number }>;
  /** null: the last one goes on. */
  endedAt: number | null;
}

export const makeLaps = (): Laps => ({ begun: [], endedAt: null });

/** Notes what is being done at present; null: nothing of it, before the first part and after the last one. Once ended they stay. */
export const lap = (laps: Laps, part: string | null, at: number): void => {
  if (laps.endedAt !== null) return;
  if (part === null) {
    if (laps.begun.length > 0) laps.endedAt = at;
    return;
  }
  if (laps.begun.at(-1)?.part !== part) laps.begun.push({ part, at });
};

/** From the first begin to the end, us; null: it is not over. */
export const totalOf = ({ begun, endedAt }: Laps): number | null =>
  endedAt === null || begun.length === 0 ? null : endedAt - begun[0]!.at;

/** Those that have ended; what goes on still was not measured. */
export const partsOf = ({ begun, endedAt }: Laps, side: WaterfallPart["side"]): ReadonlyArray<WaterfallPart> =>
  begun.flatMap(({ part, at }, index) => {
    const end = begun[index + 1]?.at ?? endedAt;
    return end === null ? [] : [{ part, side, begin: at - begun[0]!.at, length: end - at }];
  });

/** Arcs that devices went in the time of `laps`, measured on the same host; the longest WATERFALL_ARCS_MAX, in order of their begin. */
export const arcPartsOf = (
  { begun, endedAt }: Laps,
  side: WaterfallPart["side"],
  devices: ReadonlyArray<{ readonly device: string; readonly arcs: ReadonlyArray<ArcInfo> }>,
): ReadonlyArray<WaterfallPart> => {
  const from = begun[0]?.at;
  if (from === undefined) return [];
  const until = endedAt ?? Number.POSITIVE_INFINITY;
  return devices
    .flatMap(({ device, arcs }) =>
      arcs.flatMap(({ from: state, to, ms, at }): WaterfallPart[] =>
        at === undefined || at < from || at >= until
          ? []
          : [
              {
                part: `${state} -> ${to}`,
                side,
                begin: at - from,
                length: Math.round(ms * 1000),
                beside: true,
                device,
              },
            ],
      ),
    )
    .sort((a, b) => b.length - a.length)
    .slice(0, WATERFALL_ARCS_MAX)
    .sort((a, b) => a.begin - b.begin);
};
