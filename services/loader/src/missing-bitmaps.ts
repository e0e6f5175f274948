/** Which pages of an incoming guest are missing, as its source says before it runs here. */
import { Fabric } from "@godwit/fabric";
import { Bitmap, PAGE_BYTES } from "@godwit/memory";
import {
  decodeMissingWords,
  type Epoch,
  GodwitError,
  json,
  type MigrationId,
  MissingPagesRequest,
  subjects,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type { Destination } from "./decisions/index.ts";

const requests = json(MissingPagesRequest);
/** An answer comes within a round trip; one that does not is asked for again, ms. */
const ANSWER_MS = 500;

const bad = (reason: string): GodwitError =>
  new GodwitError({ code: "bad-packet", actor: "loader", side: "destination", step: "ask for missing pages", reason });

/** One bitmap for each block of the offer. What they are worth is for the record's digest to say. */
export const askForBitmaps = Effect.fnUntraced(function* (destination: Destination) {
  const fabric = yield* Fabric;
  const bitmaps: Bitmap.Bitmap[] = [];
  for (const [block, { "length-bytes": lengthBytes }] of destination.offer.blocks.entries()) {
    const bitmap = Bitmap.make(lengthBytes / PAGE_BYTES);
    for (let word = 0; word < bitmap.words.length; ) {
      const request = requests.encode({
        migration: destination.migration as MigrationId,
        epoch: destination.epoch as Epoch,
        block,
        word,
      });
      const bytes = yield* fabric.request(subjects.missingPages(destination.source, destination.node), request, {
        timeoutMs: ANSWER_MS,
      });
      const count = decodeMissingWords(bytes, bitmap.words, word);
      if (count === null)
        return yield* bad(`${bytes.length} bytes of a bitmap of ${bitmap.words.length} words, from word ${word}`);
      word += count;
    }
    if (!hasOnlyItsPages(bitmap)) return yield* bad(`bits beyond the ${bitmap.pageCount} pages of RAMBlock ${block}`);
    bitmaps.push(bitmap);
  }
  return bitmaps;
});

const hasOnlyItsPages = ({ words, pageCount }: Bitmap.Bitmap): boolean =>
  (pageCount & 31) === 0 || words[words.length - 1]! >>> (pageCount & 31) === 0;
