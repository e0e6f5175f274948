import fc from "fast-check";
import {
  decodeFileAnswer,
  decodeFileItem,
  encodeFileAnswer,
  encodeFileItem,
  type FileAnswer,
  type FileItem,
} from "./checkpoint-item.ts";
import { decoderSuite, positive, u32, wireId } from "./decoder.conformance.ts";
import { BLOCKS_MAX, CHANNELS_MAX } from "./limits.ts";

const offset = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const anyRuns = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 1, max: 10 })), { minLength: 1, maxLength: 20 })
  .map((gaps) => {
    const runs: number[] = [];
    let at = 0;
    for (const [gap, count] of gaps) {
      runs.push(at + gap, count);
      at += gap + count;
    }
    return Uint32Array.from(runs);
  });

decoderSuite<FileItem>("an item of a checkpoint", {
  valid: fc.record({
    kind: fc.constantFrom("store" as const, "fill" as const),
    id: wireId,
    round: positive,
    item: u32,
    channel: fc.integer({ min: 0, max: CHANNELS_MAX - 1 }),
    channelEpoch: u32,
    deadline: fc.double({ noNaN: true, noDefaultInfinity: true }),
    block: fc.integer({ min: 0, max: BLOCKS_MAX - 1 }),
    fileOffset: offset,
    pagesOffset: offset,
    runs: anyRuns,
    direct: fc.boolean(),
    sums: fc.boolean(),
    holes: fc.boolean(),
  }),
  encode: encodeFileItem,
  decode: decodeFileItem,
  noticesEveryBit: false,
});

const shared = { id: wireId, round: u32, item: u32 };
decoderSuite<FileAnswer>("an answer about pages of a checkpoint", {
  valid: fc.oneof(
    fc.record({
      kind: fc.constant("done" as const),
      ...shared,
      zeroMap: fc.uint8Array({ maxLength: 32 }),
      sums: fc.array(u32, { maxLength: 256 }).map((sums) => Uint32Array.from(sums)),
    }),
    fc.record({
      kind: fc.constant("refused" as const),
      ...shared,
      reason: fc.string({ unit: "grapheme", maxLength: 40 }),
    }),
  ),
  encode: encodeFileAnswer,
  decode: decodeFileAnswer,
  noticesEveryBit: false,
});
