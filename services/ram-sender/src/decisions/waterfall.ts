/**
 * What the source measures of a switchover, and how what the destination has measured is placed in it.
 *
 *     source        stop | save | sync | write the record |           await the commit            | runs there
 *                                                         `-- switching -->            -- running -->'
 *     destination                                              read | last bytes | load | commit | start
 *
 * The phases of a source follow each other without a gap, and so do those of a destination; each side measures its own by its own
 * clock, and the two clocks are never compared. The destination says how long it took from hearing "switching" to saying "running";
 * both messages enclose that. What is left of the time between them is what the two were on their way, together: how much each
 * was nobody can tell, so half of it is put before the destination's parts and half behind them, and the sum is told as `rest`.
 */
import { Ledger } from "@godwit/multifd";
import {
  arcPartsOf,
  type Laps,
  lap,
  makeLaps,
  partsOf,
  totalOf,
  type Waterfall,
  type WaterfallPart,
} from "@godwit/protocol";
import type { Phase, Source, SourceEffect } from "./source-state.ts";

/** Times in us of this host's monotonic clock; 0: not reached. */
export interface Times {
  readonly laps: Laps;
  /** The first item of the last round was handed out; the last one's acknowledgement came; its pages were compared. */
  sentFrom: number;
  applied: number;
  verified: number;
  /** What the destination says of itself; null: its word has not come. */
  destination: Waterfall | null;
}

export const makeTimes = (): Times => ({ laps: makeLaps(), sentFrom: 0, applied: 0, verified: 0, destination: null });

const AWAITED = "destination";

const PARTS: Partial<Record<Phase["_tag"], string>> = {
  Stopping: "stop",
  StoppingDevices: "stop-devices",
  PreSwitchover: "pre-switchover",
  SavingDeviceState: "save-device-state",
  FinalSync: "final-sync",
  SavingDevices: "save-devices",
  Switching: "write-record",
  AwaitingCommit: AWAITED,
  TakingBack: "take-back",
  ReleasingDevices: "release-devices",
  Resuming: "resume",
};

/** A step has ended, at `us`. */
export const note = (source: Source, effects: ReadonlyArray<SourceEffect>, us: number): void => {
  const { times, ledger, marks, phase } = source;
  lap(times.laps, marks.running === 0 ? (PARTS[phase._tag] ?? null) : null, us);
  if (times.laps.begun.length === 0) return;
  if (times.sentFrom === 0 && effects.some(({ _tag }) => _tag === "Dispatch")) times.sentFrom = us;
  if (source.manifest === null) return;
  if (times.applied === 0 && Ledger.isApplied(ledger)) times.applied = us;
  if (times.verified === 0 && Ledger.isDone(ledger)) times.verified = us;
};

/** The guest ran on while its stop was prepared: the downtime begins with the word to stop. */
export const stoppedSince = ({ times: { laps } }: Source, us: number): void => {
  const [first] = laps.begun;
  if (first !== undefined && us > first.at) laps.begun[0] = { ...first, at: us };
};

/** What is known by now; null: no switchover has begun. */
export const waterfallOf = (source: Source): Waterfall | null => {
  const { laps } = source.times;
  if (laps.begun.length === 0) return null;
  const own = partsOf(laps, "source");
  const placed = placedIn(own, source.times.destination);
  const total = totalOf(laps);
  return {
    parts: [
      ...(placed?.parts ?? own),
      ...besides(source),
      ...arcPartsOf(laps, "source", source.devices?.report?.devices ?? []),
    ],
    ...(total === null ? {} : { total, rest: placed?.rest ?? 0 }),
  };
};

/**
 * The destination's parts in the place of the wait for them. Null where they do not fit: it was told by another way than that message
 * (it was restarted, and looked at the record itself), or has not said how long it took. The wait alone was measured then.
 */
const placedIn = (own: ReadonlyArray<WaterfallPart>, destination: Waterfall | null) => {
  const wait = own.at(-1);
  if (wait?.part !== AWAITED || destination?.total === undefined || destination.total > wait.length) return null;
  const rest = wait.length - destination.total;
  const at = wait.begin + Math.floor(rest / 2);
  const parts = destination.parts.map((part) => ({ ...part, begin: at + part.begin }));
  return { parts: [...own.slice(0, -1), ...parts], rest };
};

/** What went on beside: the last round on its way, and the comparison of its pages. */
const besides = ({ times, ledger }: Source): ReadonlyArray<WaterfallPart> => {
  const { laps, sentFrom, applied, verified } = times;
  const start = laps.begun[0]!.at;
  const beside = (part: string, from: number, until: number): ReadonlyArray<WaterfallPart> =>
    from === 0 || until < from
      ? []
      : [{ part, side: "source", begin: from - start, length: until - from, beside: true }];
  return [
    ...beside("send", sentFrom, applied),
    ...(ledger.verification === null ? [] : beside("verify", applied, verified)),
  ];
};
