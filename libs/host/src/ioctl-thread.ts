/**
 * ioctls made in a thread of their own, one after another: one that takes long, as the state changes of a device may, holds up
 * nobody else. A foreign call that koffi makes in the background would do that too, but loses errno; a thread that calls and then
 * asks for errno, as `ioctl` does, does not.
 */
import { Worker } from "node:worker_threads";
import { HostError } from "./host-error.ts";
import type { IoctlCall } from "./ioctl.ts";
import { programFile } from "./program.ts";

/** What the kernel left in the call's memory, which are copies: the caller's own stay as they were. */
export interface IoctlAnswer {
  readonly result: number;
  /** Empty for a call whose argument was a number. */
  readonly argument: Uint8Array;
  readonly pointees: ReadonlyArray<Uint8Array>;
}

/** What goes to the thread. */
export type NumberedCall = IoctlCall & { readonly id: number };
/** What comes back; `failure` holds the fields of a HostError, which would not survive the way between threads as a class. */
export type NumberedAnswer = { readonly id: number } & (
  | { readonly _tag: "Answered"; readonly answer: IoctlAnswer }
  | { readonly _tag: "Failed"; readonly operation: string; readonly errno: string }
);

export interface IoctlThread {
  /** Calls are made in the order in which they were asked for. Rejects with a HostError. */
  readonly call: (call: IoctlCall) => Promise<IoctlAnswer>;
  /**
   * Ends the thread; calls that have no answer yet fail with ECANCELED. Trap: a call that the kernel is in goes on, and a
   * process that ends meanwhile waits for it.
   */
  readonly close: () => void;
}

interface Waiting {
  readonly name: string;
  readonly resolve: (answer: IoctlAnswer) => void;
  readonly reject: (error: HostError) => void;
}

export const openIoctlThread = (): IoctlThread => {
  const worker = new Worker(programFile(new URL("./ioctl-loop.ts", import.meta.url)), { name: "ioctl" });
  const waiting = new Map<number, Waiting>();
  let last = 0;
  let ended: { readonly errno: string; readonly detail: string } | null = null;

  const end = (errno: string, detail: string): void => {
    ended ??= { errno, detail };
    for (const { name, reject } of waiting.values()) reject(new HostError(`ioctl(${name})`, errno, { detail }));
    waiting.clear();
  };
  worker.on("message", (message: NumberedAnswer) => {
    const call = waiting.get(message.id);
    waiting.delete(message.id);
    if (message._tag === "Answered") call?.resolve(message.answer);
    else call?.reject(new HostError(message.operation, message.errno));
  });
  worker.on("error", (error) => end("EPIPE", `the thread that makes ioctls has ended: ${error}`));
  worker.on("exit", () => end("EPIPE", "the thread that makes ioctls has ended"));

  const call = (call: IoctlCall): Promise<IoctlAnswer> =>
    new Promise((resolve, reject) => {
      if (ended !== null) {
        reject(new HostError(`ioctl(${call.name})`, ended.errno, { detail: ended.detail }));
        return;
      }
      last += 1;
      waiting.set(last, { name: call.name, resolve, reject });
      worker.postMessage({ ...call, id: last } satisfies NumberedCall);
    });
  const close = (): void => {
    end("ECANCELED", "the thread that makes ioctls was closed");
    void worker.terminate();
  };
  return { call, close };
};
