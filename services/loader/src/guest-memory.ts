/** Which memory a session has filled: what must be the same for a restarted loader to go on with it. */

import type { GuestDescription } from "@godwit/guest";
import { bootId, identifyFile } from "@godwit/host";
import * as Schema from "effect/Schema";

/**
 * A file alone would not do: a QEMU that was started anew may have its old RAM file, and has written its firmware into it; and
 * numbers of files and processes begin anew with each boot.
 */
export const GuestMemory = Schema.Struct({
  boot: Schema.String,
  pid: Schema.Int,
  /** Device and inode of each RAMBlock's file, in order. */
  files: Schema.Array(Schema.String),
});
export type GuestMemory = typeof GuestMemory.Type;

/** Throws HostError when a file is gone. */
export const memoryOf = ({ pid, blocks }: Pick<GuestDescription, "pid" | "blocks">): GuestMemory => ({
  boot: bootId(),
  pid,
  files: blocks.map(({ path }) => {
    const { device, inode } = identifyFile(path);
    return `${device}:${inode}`;
  }),
});

export const isSameMemory = (one: GuestMemory, other: GuestMemory): boolean =>
  one.boot === other.boot && one.pid === other.pid && one.files.join() === other.files.join();
