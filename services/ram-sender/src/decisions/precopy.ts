/** Rounds: hand out what the ledger holds, retire what the destination applied, sync again when a round is done. */
import { Channels, CodecChoice, Handing, Ledger, Pace } from "@godwit/multifd";
import { PAGE_BYTES, type PassReport, type XbzrleCount } from "@godwit/protocol";
import * as Devices from "./devices.ts";
import { type Emit, fail } from "./ending.ts";
import type { Source } from "./source-state.ts";
import * as Xbzrle from "./xbzrle.ts";

/** While the guest runs: an event loop of a busy host stands still for 150 ms now and then, and a copy sent in vain costs bandwidth. */
const RUNNING: Handing.Patience = { delays: 8, minMs: 150, maxMs: 3000 };
/** While it stands still every millisecond is downtime, and a copy sent in vain costs little of what is left. */
const STOPPED: Handing.Patience = { delays: 3, minMs: 10, maxMs: 1000 };
/** Rounds of a guest that hardly writes are no shorter, ms: looking more often gains nothing, and costs the guest and the log. */
const ROUND_MIN_MS = 25;
/** While VFIO devices are what a switchover waits for, rounds only take the time that their state needs, ms, */
const ROUND_FOR_DEVICES_MS = 250;
/** from so many bytes on: less is moved within a round or two. */
const DEVICES_BEHIND_BYTES = 16 * 1024 ** 2;
/** A check that differs is repaired and made again at most so often: memory that does not keep what it is given must not be run on. */
const CHECK_ATTEMPTS_MAX = 8;
/** An item that was refused so often ends the attempt: what eight tries cannot read is not there to be read, and the next attempt exports it anew. */
const REFUSALS_MAX = 8;
/** A round must move this much before its rate says anything about the link, bytes. */
const MEASURE_BYTES_MIN = 1024 ** 2;
/** Without a single worker for this long the migration gives up, ms: a supervisor restarts one in well under a second, and a host that was cut off from NATS for half a minute comes back. */
export const WORKERS_LOST_MS = 60_000;

const patienceOf = (source: Source): Handing.Patience => (pumping(source) === "at full speed" ? STOPPED : RUNNING);

/** How long after it was handed out first an item is late, ms. */
export const resendAfterMs = (source: Source): number => Handing.lateAfter(patienceOf(source), source.meter.ackMs);

/** Phases in which items are handed out; the pace of `max-bandwidth` does not bind a stopped guest. */
const pumping = (source: Source): "paced" | "at full speed" | "no" => {
  switch (source.phase._tag) {
    case "Precopy":
      return "paced";
    case "FinalSync":
    case "SavingDevices":
    case "Switching":
    case "AwaitingCommit":
      return "at full speed";
    default:
      return "no";
  }
};

export const isSending = (source: Source): boolean => pumping(source) !== "no";

/** Hands out items while there are any, windows have room and the pace allows. */
export const pump = (source: Source, now: number, emit: Emit): void => {
  const mode = pumping(source);
  if (mode === "no") return;
  const { ledger, pace } = source;
  while (mayHandOut(source)) {
    if (mode === "paced" && !Pace.maySpend(pace, now)) return;
    const handed = Handing.next(source, now);
    if (handed === null) return;
    if (mode === "paced") Pace.spend(pace, wireBytesAtMost(handed.item));
    const xbzrle = source.xbzrle === null ? null : Xbzrle.plan(source.xbzrle, ledger, handed.item);
    emit({ _tag: "Dispatch", ...handed, xbzrle });
  }
};

/** What a postcopy begins without is known when its sync has ended: no page goes before, and none after it. */
const mayHandOut = ({ phase, postcopy, ledger }: Source): boolean =>
  phase._tag === "FinalSync" && postcopy ? ledger.slices.length > 0 : Ledger.hasWork(ledger);

/** What an item may put on the wire; a check sends digests only, which nobody counts. */
const wireBytesAtMost = ({ work, bytes }: Ledger.Item): number => (work.kind === "check" ? 0 : bytes);

/** Begins a round: from here on acknowledgements of the old one no longer count, and everything owed is owed again. */
export const beginRound = (source: Source, now: number): void => {
  Handing.beginRound(source);
  if (source.codec !== null) CodecChoice.beginRound(source.codec, now);
  source.meter.roundNormalBytes = 0;
  source.meter.checkedBytes = 0;
  source.meter.checksStartedAt = now;
  source.meter.roundStartedAt = now;
};

/** Sync first, then read (R3): the tracker reports each dirty page before any worker is asked to read it. */
export const beginSync = (source: Source, now: number, emit: Emit): void => {
  source.phase = { _tag: "Precopy", scanning: true, verdict: "none" };
  beginRound(source, now);
  emit({ _tag: "Local", step: "sync", round: source.ledger.round });
};

export const synced = (source: Source, dirtyPages: number, syncMs: number, now: number, emit: Emit): void => {
  const { meter } = source;
  Ledger.foundAll(source.ledger);
  if (meter.lastSyncAt !== 0 && now > meter.lastSyncAt)
    meter.dirtyPagesRate = (dirtyPages * 1000) / (now - meter.lastSyncAt);
  meter.lastSyncAt = now;
  meter.syncMs = syncMs;
  const pass: PassReport = {
    round: source.ledger.round,
    remaining: Ledger.remainingBytes(source.ledger),
    bandwidth: meter.bandwidth,
    unverified: (source.ledger.verification?.pages ?? 0) * PAGE_BYTES,
    "verify-bandwidth": meter.verifyBandwidth,
    "sync-ms": syncMs,
    running: source.wasRunning,
    ...Devices.passOf(source.devices),
  };
  source.verdictWanted = pass;
  source.phase = { _tag: "Precopy", scanning: false, verdict: "asked" };
  emit({ _tag: "Report" });
};

const isRoundDone = ({ phase, ledger }: Source): boolean =>
  phase._tag === "Precopy" && !phase.scanning && phase.verdict === "iterate" && Ledger.isDone(ledger);

/** A round ends when everything it found is applied and the coordinator wants another one. */
export const maybeEndRound = (source: Source, now: number, emit: Emit): void => {
  if (isRoundDone(source) && now >= nextRoundAt(source)) beginSync(source, now, emit);
};

const nextRoundAt = ({ meter, devices }: Source): number =>
  meter.roundStartedAt + (Devices.remainingBytes(devices) > DEVICES_BEHIND_BYTES ? ROUND_FOR_DEVICES_MS : ROUND_MIN_MS);

/** When the next round begins, ms; null while something else must happen first. */
export const roundDueAt = (source: Source): number | null => (isRoundDone(source) ? nextRoundAt(source) : null);

export const itemsApplied = (
  source: Source,
  event: {
    readonly items: Uint32Array;
    readonly normalPages: number;
    readonly wireBytes: number;
    readonly xbzrle: XbzrleCount;
  },
  now: number,
): void => {
  const { meter, ledger } = source;
  let pages = 0;
  let retired = 0;
  let retiredBytes = 0;
  for (const number of event.items) {
    const item = Ledger.applied(ledger, number);
    if (item === null) continue;
    retired++;
    retiredBytes += wireBytesAtMost(item);
    Channels.leaveWindow(source.channels, item);
    Channels.trust(source.channels, item);
    if (source.xbzrle !== null) Xbzrle.applied(source.xbzrle, ledger, item);
    if (item.work.kind === "check") meter.checkedBytes += item.bytes;
    if (item.work.kind === "pages") pages += item.work.pages;
    // From the first copy on, whichever copy was answered: where every item is late the last copy alone would teach nothing, and
    // a path that is only slow would get everything twice for ever.
    meter.ackMs = Handing.smoothed(meter.ackMs, now - item.firstSentAt);
  }
  // The sum is over all items of the message; those that were retired before have been counted.
  const part = retired / event.items.length;
  const normalPages = Math.min(pages, Math.round(event.normalPages * part));
  if (source.xbzrle !== null) Xbzrle.note(source.xbzrle, event.xbzrle, part);
  meter.pages += pages;
  meter.normalPages += normalPages;
  meter.wireBytes += event.wireBytes;
  Pace.refund(source.pace, retiredBytes - event.wireBytes);
  if (source.codec !== null) {
    const items = { itemBytes: retiredBytes, pageBytes: normalPages * PAGE_BYTES };
    CodecChoice.applied(source.codec, items, ledger.outstandingBytes, now);
  }
  meter.roundNormalBytes += normalPages * PAGE_BYTES;
  noteChecks(source, now);
  noteBandwidth(source, now);
};

/**
 * A round that moves much tells how fast the way is. One that moves little tells less than that, since most of its time is waiting: a
 * way that is faster than was believed (the guest wrote more before, or `max-bandwidth` was raised) shows in it all the same.
 */
const noteBandwidth = ({ meter }: Source, now: number): void => {
  const elapsed = now - meter.roundStartedAt;
  if (elapsed <= 0) return;
  const rate = (meter.roundNormalBytes * 1000) / elapsed;
  if (meter.roundNormalBytes >= MEASURE_BYTES_MIN || rate > meter.bandwidth) meter.bandwidth = rate;
};

/** The rate of checks is that of a round's checks alone: from its last applied page on. */
const noteChecks = (source: Source, now: number): void => {
  const { meter, ledger } = source;
  if (!Ledger.isApplied(ledger)) meter.checksStartedAt = now;
  const elapsed = now - meter.checksStartedAt;
  if (meter.checkedBytes >= MEASURE_BYTES_MIN && elapsed > 0)
    meter.verifyBandwidth = (meter.checkedBytes * 1000) / elapsed;
};

/**
 * A check found pages that are not what they are here. One that does not come out equal however often it is repaired ends the attempt. Of
 * pages it says that their deltas were made for something else: they go again, whole, as all that goes again.
 */
export const itemDiffers = (source: Source, number: number, differing: Uint8Array, emit: Emit): void => {
  const { ledger } = source;
  const check = ledger.outstanding.get(number);
  if (check === undefined) return;
  if (check.work.kind === "pages") {
    // Said of the first copy alone: the others have no deltas.
    if (check.attempts === 1) Handing.again(source, check);
    return;
  }
  const { channel } = check;
  if (Ledger.differs(ledger, number, differing) === null) return;
  Channels.leaveWindow(source.channels, { ...check, channel });
  // While the guest runs it may have written the page; and copies that were only late are no repairs.
  if (ledger.promised === null || check.attempts < CHECK_ATTEMPTS_MAX) return;
  const reason = `pages of RAMBlock ${source.offer?.blocks[(check.work as Ledger.CheckWork).block]?.name} differ at the destination after they were sent ${check.attempts} times`;
  fail(source, { code: "verification-failed", actor: "ram-sender", side: "source", step: "verify", reason }, emit);
};

/**
 * A worker could not read the memory: another channel sends it at once, and this one gets nothing for a while. Refused again it goes
 * when it is late, like any other: memory that went with its guest is not asked for before the guest's end is known.
 */
export const itemsRefused = (
  source: Source,
  event: { readonly items: Uint32Array; readonly reason: string },
  now: number,
  emit: Emit,
): void => {
  for (const number of event.items) {
    const item = Handing.refused(source, number, now);
    if (item === null) continue;
    if (item.refusals === 1) Handing.again(source, item);
    if (item.refusals < REFUSALS_MAX) continue;
    const reason = `multifd workers of node ${source.node} have refused one item ${REFUSALS_MAX} times: ${event.reason}`;
    return fail(
      source,
      { code: "memory-unreadable", actor: "ram-sender", side: "source", step: "send pages", reason },
      emit,
    );
  }
};

export const workerUp = (source: Source, worker: string): void => {
  source.workersLostAt = null;
  Handing.workerUp(source, worker);
};

export const workerDown = (source: Source, worker: string, now: number): void => {
  Handing.workerDown(source, worker);
  if (source.channels.workers.size === 0) source.workersLostAt = now;
};

/** Everything in flight may be lost: the link broke. */
export const linkRestored: (source: Source) => void = Handing.linkRestored;

/** Time has passed: late items go to other channels at once; without workers for too long the attempt ends. */
export const checkChannels = (source: Source, now: number, emit: Emit): void => {
  Handing.takeBackLate(source, now, resendAfterMs(source), patienceOf(source).maxMs);
  if (source.workersLostAt !== null && now - source.workersLostAt >= WORKERS_LOST_MS) {
    fail(
      source,
      {
        code: "workers-lost",
        actor: "ram-sender",
        side: "source",
        step: "send pages",
        reason: `node ${source.node} has had no multifd worker for ${WORKERS_LOST_MS} ms`,
      },
      emit,
    );
  }
};
