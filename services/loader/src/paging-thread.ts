/** A thread that answers the faults of a guest whose memory comes from a checkpoint, and places the rest behind; see `paging-loop.ts`. */
import { Worker } from "node:worker_threads";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { type PagingEnd, type PagingJob, type PagingProgress, type PagingReport, STOP } from "./paging-messages.ts";

export interface PagingThread {
  /**
   * Returns once nothing of the job is under way any more; interrupted, after a few ms as well. One job at a time. The guest waits
   * from then on, unless all is there.
   */
  readonly run: (job: Omit<PagingJob, "stop">, seen: (progress: PagingProgress) => void) => Effect.Effect<PagingEnd>;
}

/** Takes a tenth of a second to be ready for a job, which it may be given at once. */
export const openPagingThread: Effect.Effect<PagingThread, never, Scope.Scope> = Effect.gen(function* () {
  const worker = yield* Effect.acquireRelease(
    Effect.sync(() => new Worker(new URL("./paging-loop.ts", import.meta.url), { name: "paging" })),
    (thread) => Effect.promise(() => thread.terminate()),
  );
  let dead: string | null = null;
  // Without a listener an error would end this process. Whoever has a job there hears of the exit that follows.
  worker.on("error", (error) => {
    dead = `the thread that places pages has ended: ${error}`;
  });
  worker.on("exit", () => {
    dead ??= "the thread that places pages has ended";
  });
  const run: PagingThread["run"] = (job, seen) =>
    Effect.callback<PagingEnd>((resume) => {
      const stop = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
      const ended = Promise.withResolvers<PagingEnd>();
      const hear = (report: PagingReport): void => {
        if (report._tag === "Progress") seen(report);
        else ended.resolve(report);
      };
      const exited = (): void => ended.resolve({ _tag: "Stuck", reason: dead ?? "no thread" });
      worker.on("message", hear);
      worker.on("exit", exited);
      void ended.promise.then((end) => {
        worker.off("message", hear);
        worker.off("exit", exited);
        resume(Effect.succeed(end));
      });
      if (dead !== null) exited();
      worker.postMessage({ ...job, stop } satisfies PagingJob);
      return Effect.promise(() => {
        Atomics.store(new Int32Array(stop), 0, STOP);
        return ended.promise;
      });
    });
  return { run };
});
