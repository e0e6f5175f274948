import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createRamFile, SHARED_MEMORY_DIRECTORY } from "@godwit/host";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { TrackedProcess } from "../dirty-tracker.ts";
import { PAGE_BYTES, type RamBlock } from "../ram-block.ts";
import type { WriterAnswer, WriterOrder } from "./writer-messages.ts";

/** A real process that stands for a guest's: it maps a file in /dev/shm and writes into it on command. */
export interface Writer {
  readonly process: TrackedProcess;
  /** A directory of this writer alone, on tmpfs, for shadows; removed at the end. */
  readonly directory: string;
  readonly child: ChildProcess;
  /** Has an order carried out; resolves when it is. */
  readonly tell: (order: WriterOrder) => Effect.Effect<WriterAnswer & { readonly _tag: "Done" }>;
  /** Kills the process and waits until it is gone. */
  readonly kill: Effect.Effect<void>;
}

/** Starts a writer whose file holds blocks of these lengths, one behind the other. The scope's end kills it and removes its files. */
export const startWriter = (options: {
  readonly blockPages: ReadonlyArray<number>;
  readonly userfaultfd: boolean;
}): Effect.Effect<Writer, never, Scope.Scope> =>
  Effect.gen(function* () {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(SHARED_MEMORY_DIRECTORY, "godwit-writer-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true })),
    );
    const path = join(directory, "ram");
    const blocks: RamBlock[] = [];
    let lengthBytes = 0;
    for (const [index, pages] of options.blockPages.entries()) {
      blocks.push({
        name: `block${index}`,
        lengthBytes: pages * PAGE_BYTES,
        hostPageBytes: PAGE_BYTES,
        path,
        fileOffset: lengthBytes,
      });
      lengthBytes += pages * PAGE_BYTES;
    }
    closeSync(createRamFile(path, lengthBytes));
    const setup = JSON.stringify({ path, lengthBytes, userfaultfd: options.userfaultfd });
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [new URL("./writer-process.ts", import.meta.url).pathname, setup], {
          stdio: ["ignore", "inherit", "inherit", "ipc"],
          serialization: "advanced",
        }),
      ),
      (running) => endOf(running),
    );
    const ready = yield* nextAnswer(child);
    if (ready._tag !== "Ready") throw new Error(`the writer began with ${ready._tag}`);
    const tell: Writer["tell"] = (order) =>
      Effect.gen(function* () {
        // Listening comes first: the answer may be there before the next step.
        const answer = yield* Effect.callback<WriterAnswer>((resume) => {
          child.once("message", (message) => resume(Effect.succeed(message as WriterAnswer)));
          child.send(order);
        });
        if (answer._tag !== "Done") throw new Error(`the writer answered ${answer._tag}`);
        return answer;
      });
    const tracked = {
      pid: child.pid!,
      blocks: blocks.map((block) => ({ ...block, address: ready.address + BigInt(block.fileOffset) })),
      userfaultfd: options.userfaultfd,
    };
    return { process: tracked, directory, child, tell, kill: endOf(child) };
  });

const nextAnswer = (child: ChildProcess): Effect.Effect<WriterAnswer> =>
  Effect.callback((resume) => {
    child.once("message", (message) => resume(Effect.succeed(message as WriterAnswer)));
    child.once("exit", (code) => resume(Effect.die(new Error(`the writer exited with ${code}`))));
  });

const endOf = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void);
    child.once("exit", () => resume(Effect.void));
    child.kill("SIGKILL");
  });
