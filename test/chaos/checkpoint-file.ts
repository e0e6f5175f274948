/** What must be true of the file of a checkpoint after a save over it, whatever became of the save. */
import { closeSync, openSync, statSync } from "node:fs";
import { readCheckpoint } from "@godwit/checkpoint";
import type { CheckpointInfo } from "@godwit/protocol";

/** `gone`: whoever worked for it was killed, and his successor knows nothing of it. Null: it never ended. */
export type End = CheckpointInfo["status"] | "gone" | null;

/** Whose file it is, or what is wrong with it. */
export const fileAt = (path: string): { readonly inode: number } | { readonly wrong: string } => {
  try {
    const fd = openSync(path, "r");
    try {
      readCheckpoint(fd);
      return { inode: statSync(path).ino };
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    return { wrong: String(error) };
  }
};

/** What is wrong with the checkpoint after a save over it. */
export const wrongWithFile = (path: string, oldInode: number, end: End): ReadonlyArray<string> => {
  const file = fileAt(path);
  if ("wrong" in file) return [`checkpoint: it is none any more after a save that was ${end}: ${file.wrong}`];
  if (end === "completed" && file.inode === oldInode)
    return ["checkpoint: the save completed, and the old one is there"];
  if ((end === "failed" || end === "cancelled") && file.inode !== oldInode)
    return [`checkpoint: the save was ${end}, and the old one is gone`];
  return end === null ? ["checkpoint: the save has not ended"] : [];
};
