/** From what the decisions hand out to the work item that a multifd worker gets. */
import { isZeroPage, PAGE_BYTES, type RamBlock, type RamReader } from "@godwit/memory";
import { compressionLevelOf, encodeWorkItem, fixedCompressionOf, wantedLane } from "@godwit/protocol";
import type { Source, SourceEffect } from "./decisions/index.ts";

/**
 * A worker that gets to an item later than this drops it, ms: by then the sender has handed it out again, and in the end given
 * up. Both clocks are this host's.
 */
const ITEM_LIFE_MS = 30_000;

/** Looks for zero pages here, as `zero-page-detection: legacy` wants it. Throws what the reader throws. */
const zeroMapOf = (reader: RamReader, runs: Uint32Array, pages: number): Uint8Array => {
  const map = new Uint8Array((pages + 7) >>> 3);
  const page = Buffer.allocUnsafe(PAGE_BYTES);
  let index = 0;
  for (let r = 0; r < runs.length; r += 2) {
    for (let at = runs[r]!; at < runs[r]! + runs[r + 1]!; at++, index++) {
      reader.readPages(at, 1, page, 0);
      if (isZeroPage(page, 0)) map[index >>> 3]! |= 1 << (index & 7);
    }
  }
  return map;
};

/** `readers` are only needed, and only opened, for `zero-page-detection: legacy`. */
export const workItem = (
  source: Source,
  effect: Extract<SourceEffect, { _tag: "Dispatch" }>,
  blocks: ReadonlyArray<RamBlock>,
  readers: ReadonlyArray<RamReader>,
  now: number,
): Uint8Array => {
  const { parameters } = source;
  const { item } = effect;
  const shared = {
    migration: source.migration,
    epoch: source.epoch,
    round: source.ledger.round,
    item: item.item,
    channel: effect.channel,
    channelEpoch: effect.channelEpoch,
    compression: source.codec?.codec ?? fixedCompressionOf(parameters),
    level: compressionLevelOf(parameters),
    deadline: now + ITEM_LIFE_MS,
    lane: wantedLane(parameters),
  };
  const { work } = item;
  if (work.kind === "slice")
    return encodeWorkItem({ kind: "slice", ...shared, stream: 0, offset: work.offset, bytes: work.bytes });
  const { fileOffset } = blocks[work.block]!;
  // Digests have nothing to compress.
  if (work.kind === "check")
    return encodeWorkItem({
      kind: "check",
      ...shared,
      compression: "none",
      block: work.block,
      fileOffset,
      runs: work.runs,
    });
  const reader = readers[work.block];
  const detection = parameters["zero-page-detection"];
  return encodeWorkItem({
    kind: "pages",
    ...shared,
    block: work.block,
    fileOffset,
    zeroPages:
      detection === "none"
        ? "none"
        : detection === "legacy" && reader !== undefined
          ? zeroMapOf(reader, work.runs, work.pages)
          : "worker",
    runs: work.runs,
    xbzrle: effect.xbzrle,
  });
};
