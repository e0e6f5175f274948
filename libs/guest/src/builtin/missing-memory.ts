/** Missing pages of a builtin guest: its process holds the userfaultfd, and this one borrows it. */
import { closeSync } from "node:fs";
import {
  borrowDescriptor,
  copyPages,
  faultsComing,
  makeFaultReader,
  PAGE_BYTES,
  wakePages,
  zeroPages,
} from "@godwit/host";
import type { RamBlock } from "@godwit/memory";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { MissingMemory, Touch } from "../missing-memory.ts";

/** How long one wait for faults takes at most, ms: a watch that is no longer wanted ends by then. */
const WAIT_MS = 100;

const failed = (cause: unknown): GodwitError =>
  new GodwitError({
    code: "guest-failed",
    actor: "guest",
    step: "wait for missing pages",
    reason: cause instanceof Error ? cause.message : String(cause),
  });

/** What the guest's process has said of itself. */
interface Waiting {
  readonly pid: number;
  /** The userfaultfd there. */
  readonly fd: number;
  /** Where its only block lies there. */
  readonly address: bigint;
  readonly block: RamBlock;
}

export const borrowMissingMemory = Effect.fnUntraced(function* (
  { pid, fd, address, block: { lengthBytes, hostPageBytes } }: Waiting,
  rest: Pick<MissingMemory, "vcpus" | "end" | "giveUp">,
): Effect.fn.Return<MissingMemory, GodwitError, Scope.Scope> {
  const uffd = yield* Effect.acquireRelease(
    Effect.try({ try: () => borrowDescriptor(pid, fd), catch: failed }),
    (borrowed) => Effect.sync(() => closeSync(borrowed)),
  );
  const at = (page: number): bigint => address + BigInt(page * PAGE_BYTES);
  const touchOf = (touched: bigint, thread: number): Touch => ({
    block: 0,
    page: Number((touched - address) / BigInt(PAGE_BYTES)),
    thread,
  });
  const touches: MissingMemory["touches"] = (touched) =>
    Effect.gen(function* () {
      const faults = makeFaultReader(uffd);
      // Of messages that a dead predecessor took nobody speaks again; whoever still waits raises his fault anew.
      yield* Effect.try({ try: () => wakePages(uffd, { address, lengthBytes }), catch: failed });
      for (;;) {
        yield* Effect.promise(() => faultsComing(uffd, WAIT_MS));
        yield* Effect.try({
          try: () => {
            for (const fault of faults.read()) touched(touchOf(fault.address, fault.thread));
          },
          catch: failed,
        });
      }
    });
  /** The kernel has no zero pages of hugetlbfs; and a touched one is of zeros as a whole, since nothing of it was ever written. */
  const zero = (firstPage: number, pages: number): void => {
    const hostPages = hostPageBytes / PAGE_BYTES;
    if (hostPages === 1) return void zeroPages(uffd, at(firstPage), pages);
    const first = firstPage - (firstPage % hostPages);
    const end = Math.ceil((firstPage + pages) / hostPages) * hostPages;
    copyPages(uffd, at(first), new Uint8Array((end - first) * PAGE_BYTES), hostPageBytes);
  };
  return {
    ...rest,
    touches,
    copy: (_, firstPage, bytes) => void copyPages(uffd, at(firstPage), bytes, hostPageBytes),
    zero: (_, firstPage, pages) => zero(firstPage, pages),
    placed: () => Effect.void,
  };
});
