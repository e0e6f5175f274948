/** Filling a guest's memory from a checkpoint: which pages are asked for, of whom, and what is wrong with them. Pure. */

import * as Bitmap from "@godwit/memory/bitmap";
import { Channels, Handing, Ledger } from "@godwit/multifd";
import { type Failure, FILE_ITEM_PAGES_MAX, PAGE_BYTES } from "@godwit/protocol";

export interface FillBlock {
  readonly name: string;
  readonly pages: number;
  /** The pages that the checkpoint holds; the others are zeros before it begins. */
  readonly present: Bitmap.Bitmap;
  /** What each page must sum up to; null: nobody knows. */
  readonly sums: Uint32Array | null;
}

export interface Fill {
  readonly blocks: ReadonlyArray<FillBlock>;
  readonly ledger: Ledger.Ledger;
  readonly channels: Channels.Channels;
  readBytes: number;
  ackMs: number;
  workersLostAt: number | null;
  ended: boolean;
}

export type FillEvent =
  | { readonly _tag: "Filled"; readonly item: number; readonly sums: Uint32Array }
  | { readonly _tag: "Refused"; readonly item: number; readonly reason: string }
  | { readonly _tag: "WorkerUp"; readonly worker: string }
  | { readonly _tag: "WorkerDown"; readonly worker: string }
  | { readonly _tag: "LinkRestored" }
  | { readonly _tag: "Tick" };

export type FillEffect =
  | {
      readonly _tag: "Dispatch";
      readonly worker: string;
      readonly item: Ledger.Item;
      readonly channel: number;
      readonly channelEpoch: number;
    }
  | { readonly _tag: "Done" }
  | { readonly _tag: "Failed"; readonly failure: Failure }
  | { readonly _tag: "WakeAt"; readonly at: number };

/** The one round of a restore. */
export const FILL_ROUND = 1;

export const makeFill = (blocks: ReadonlyArray<FillBlock>, channels: number, now: number): Fill => {
  const ledger = Ledger.make(
    blocks.map(({ pages }) => pages),
    FILE_ITEM_PAGES_MAX,
  );
  Ledger.beginRound(ledger);
  blocks.forEach(({ present, pages }, block) => {
    for (let run = Bitmap.nextRun(present, 0, pages); run !== null; ) {
      Ledger.found(ledger, block, run.first, run.count);
      run = Bitmap.nextRun(present, run.first + run.count, pages);
    }
  });
  Ledger.foundAll(ledger);
  return {
    blocks,
    ledger,
    channels: Channels.make(channels),
    readBytes: 0,
    ackMs: 0,
    workersLostAt: now,
    ended: false,
  };
};

type Emit = (effect: FillEffect) => void;

/** Advances `fill` (which it owns and changes) by one event; "Tick" begins it. */
export const stepFill = (fill: Fill, event: FillEvent, now: number): FillEffect[] => {
  const effects: FillEffect[] = [];
  if (fill.ended) return effects;
  const emit: Emit = (effect) => effects.push(effect);
  handle(fill, event, now, emit);
  pump(fill, now, emit);
  if (!fill.ended && Ledger.isDone(fill.ledger)) {
    fill.ended = true;
    emit({ _tag: "Done" });
  }
  if (!fill.ended) emit({ _tag: "WakeAt", at: now + Handing.FILE.checkMs });
  return effects;
};

const handle = (fill: Fill, event: FillEvent, now: number, emit: Emit): void => {
  switch (event._tag) {
    case "Filled":
      return filled(fill, event.item, event.sums, now, emit);
    case "Refused":
      return refused(fill, event.item, event.reason, now, emit);
    case "WorkerUp":
      fill.workersLostAt = null;
      return Handing.workerUp(fill, event.worker);
    case "WorkerDown":
      Handing.workerDown(fill, event.worker);
      if (fill.channels.workers.size === 0) fill.workersLostAt = now;
      return;
    case "LinkRestored":
      return Handing.linkRestored(fill);
    case "Tick":
      return tick(fill, now, emit);
  }
};

const pump = (fill: Fill, now: number, emit: Emit): void => {
  while (!fill.ended) {
    const handed = Handing.next(fill, now);
    if (handed === null) return;
    emit({ _tag: "Dispatch", ...handed });
  }
};

const failed = (fill: Fill, code: Failure["code"], reason: string, emit: Emit): void => {
  fill.ended = true;
  emit({
    _tag: "Failed",
    failure: { code, actor: "loader", side: "destination", step: "read the checkpoint", reason },
  });
};

const filled = (fill: Fill, number: number, sums: Uint32Array, now: number, emit: Emit): void => {
  const known = fill.ledger.outstanding.get(number);
  if (known === undefined || known.work.kind !== "pages") return;
  const wrong = firstWrong(fill.blocks[known.work.block]!, known.work, sums);
  if (wrong !== null) return failed(fill, "bad-checkpoint", wrong, emit);
  const item = Ledger.applied(fill.ledger, number);
  if (item === null) return;
  Channels.leaveWindow(fill.channels, item);
  fill.readBytes += item.bytes;
  fill.ackMs = Handing.smoothed(fill.ackMs, now - item.firstSentAt);
};

/** What is wrong with the first page of an item that does not sum up to what was saved. */
const firstWrong = (block: FillBlock, work: Ledger.PagesWork, sums: Uint32Array): string | null => {
  if (block.sums === null) return null;
  if (sums.length !== work.pages) return `a worker gave ${sums.length} checksums for ${work.pages} pages`;
  let at = 0;
  for (let r = 0; r < work.runs.length; r += 2) {
    const first = work.runs[r]!;
    for (let page = first; page < first + work.runs[r + 1]!; page++, at++) {
      if (sums[at] !== block.sums[page])
        return `page ${page} of RAMBlock ${block.name} (byte ${page * PAGE_BYTES}) is damaged: its checksum is not the one that was saved`;
    }
  }
  return null;
};

const refused = (fill: Fill, number: number, reason: string, now: number, emit: Emit): void => {
  const item = Handing.refused(fill, number, now);
  if (item === null) return;
  if (item.refusals < Handing.FILE.refusalsMax) return Handing.again(fill, item);
  failed(fill, "checkpoint-failed", `multifd workers have refused one item ${item.refusals} times: ${reason}`, emit);
};

const tick = (fill: Fill, now: number, emit: Emit): void => {
  if (fill.workersLostAt !== null && now - fill.workersLostAt >= Handing.FILE.workersLostMs)
    return failed(fill, "workers-lost", `there has been no multifd worker for ${Handing.FILE.workersLostMs} ms`, emit);
  Handing.takeBackLateCopies(fill, now, fill.ackMs);
};
