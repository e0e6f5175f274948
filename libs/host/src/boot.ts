import { readFileSync } from "node:fs";
import { errnoOf, HostError } from "./host-error.ts";

const PATH = "/proc/sys/kernel/random/boot_id";

/** The kernel's name for this boot of the host: what names a process or a file in memory means nothing in another one. */
export const bootId = (): string => {
  try {
    return readFileSync(PATH, "utf8").trim();
  } catch (error) {
    throw new HostError("read", errnoOf(error), { path: PATH });
  }
};
