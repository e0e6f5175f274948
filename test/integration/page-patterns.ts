/** What a guest's memory is known by, wherever its bytes turn up. */
import { closeSync, openSync, readSync } from "node:fs";
import { type BuiltinSpec, openGuest } from "@godwit/guest";
import * as Effect from "effect/Effect";
import type { World } from "./world.ts";

const PAGE_BYTES = 4096;

/** What it holds for good: some bytes of pages behind its working set, which it filled once and hardly writes again. */
export const patternsOf = async (
  world: World,
  spec: BuiltinSpec,
  workingSetBytes: number,
): Promise<ReadonlyArray<Buffer>> => {
  const { blocks } = await world.run(Effect.flatMap(openGuest(spec), (guest) => guest.describe));
  const { path, lengthBytes } = blocks[0]!;
  const fd = openSync(path, "r");
  const patterns: Buffer[] = [];
  for (let at = workingSetBytes; at < lengthBytes; at += 16 * PAGE_BYTES) {
    const bytes = Buffer.alloc(32);
    readSync(fd, bytes, 0, bytes.length, at + 1000);
    if (bytes.some((byte) => byte !== 0)) patterns.push(bytes);
  }
  closeSync(fd);
  return patterns;
};
