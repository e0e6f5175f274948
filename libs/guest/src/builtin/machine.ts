/**
 * The guest as a machine: its state, and what may be asked of it in each.
 *
 *     boot --> running <--> paused
 *     incoming --load--> loaded --resume--> running          loaded: may be loaded again
 *     running --reset--> running, from the start             running --shut down--> shutdown
 *     any --> failed, when a vCPU thread ends, or pages that are missing cannot be had
 *
 * An incoming guest may be told to listen: its pages then come whenever they come, and its vCPUs wait for those that they touch.
 *
 * Operations that change it run one after the other, in the order asked; all may be repeated.
 */

import type { GuestEnding, RunState } from "../guest.ts";
import { decodeDeviceState, encodeDeviceState, MACHINE, readDeviceState, writeDeviceState } from "./device-state.ts";
import { whileWanted } from "./monitor.ts";
import type { Ram } from "./ram.ts";
import { Refusal } from "./refusal.ts";
import { pagesOfVcpus } from "./share.ts";
import type { ProcessSpec } from "./spec.ts";
import { emptyLedger, startVcpus, type VcpuState } from "./vcpus.ts";
import { makeSweep, reportOfCheck, type Sweep, type VerifyReport } from "./verification.ts";

type State =
  | { readonly tag: "incoming" }
  | { readonly tag: "loaded"; readonly device: VcpuState }
  | { readonly tag: "paused"; readonly device: VcpuState }
  | { readonly tag: "running"; readonly device: VcpuState }
  | { readonly tag: "shutdown" }
  | { readonly tag: "failed"; readonly reason: string };

/** `describe`'s answer. */
export interface MachineDescription {
  readonly name: string;
  readonly pid: number;
  readonly machine: string;
  /** The Node.js that runs it. */
  readonly version: string;
  readonly runState: RunState;
  readonly block: {
    readonly name: string;
    readonly lengthBytes: number;
    readonly path: string;
    /** The unit in which it is mapped, bytes. */
    readonly hostPageBytes: number;
    readonly address: string;
  };
  readonly userfaultfd: boolean;
  /** While pages of its memory are missing: the descriptor that tells who waits for which. Null: all of its memory is there. */
  readonly missingFd: number | null;
}

/** `stats`' answer. */
export interface MachineStats {
  readonly runState: RunState;
  /** Pages written since this process began to run the guest, or reset it; the first filling does not count. */
  readonly pagesWritten: number;
  /** Writes that were due but given up, because the host did not keep up. */
  readonly pagesDropped: number;
  /** How long the guest ran in this process, ms. */
  readonly ranMs: number;
  /** Null while nothing is known of the workload: an incoming guest before its load. */
  readonly workload: VcpuState["workload"] | null;
}

export interface Machine {
  readonly describe: () => MachineDescription;
  readonly stats: () => MachineStats;
  /** What the sweep since the last load knows so far. */
  readonly verified: () => VerifyReport;
  /** Waits for that sweep's end; `signal` gives up waiting. */
  readonly awaitVerified: (signal: AbortSignal) => Promise<VerifyReport>;
  readonly pause: () => Promise<void>;
  readonly resume: () => Promise<void>;
  /** What a guest does that reboots: memory is filled anew, and the vCPUs begin from the start. A guest that is stopped does nothing. */
  readonly reset: () => Promise<void>;
  /** What a guest does that powers itself off: its vCPUs stand still for good. */
  readonly shutDown: () => Promise<void>;
  readonly save: (path: string) => Promise<number>;
  readonly load: (path: string) => Promise<void>;
  /** Before an incoming guest runs: its vCPUs shall wait for pages that are not there. */
  readonly listen: () => Promise<{ readonly fd: number }>;
  /** All pages are there. */
  readonly endListening: () => void;
  /** Pages that are missing will never come: a guest that listens has failed, and its vCPUs go no further. */
  readonly giveUp: (reason: string) => void;
  /** Checks every page of a paused guest. */
  readonly check: () => Promise<VerifyReport>;
}

const RUN_STATES = {
  incoming: "incoming",
  loaded: "paused",
  paused: "paused",
  running: "running",
  shutdown: "shutdown",
  failed: "failed",
} as const satisfies Record<State["tag"], RunState>;

/** Starts the vCPUs over `ram`; a guest that boots runs when this resolves. `ended` is told when the guest's life ends by itself. */
export const startMachine = async (
  spec: ProcessSpec,
  ram: Ram,
  log: (text: string) => void,
  ended: (ending: GuestEnding) => void,
): Promise<Machine> => {
  const { memoryBytes } = spec;
  let state: State = { tag: "incoming" };
  let sweep: Sweep | null = null;
  let ranMs = 0;
  let runningSince = 0;
  const vcpus = await startVcpus(ram.address, memoryBytes, spec.role === "boot" ? spec.workload.vcpus : spec.vcpus, {
    found: (finding) => {
      log(`bad page ${finding.page}: ${finding.found}, expected version ${finding.expectedVersion}`);
      sweep?.found(finding);
    },
    swept: () => {
      sweep?.vcpuDone();
      if (sweep?.isDone()) log(`all pages verified since the load, ${vcpus.counts().pagesBad} of them bad`);
    },
    failed: (reason) => fail(reason),
  });
  const fail = (reason: string): void => {
    log(`failed: ${reason}`);
    state = { tag: "failed", reason };
    sweep?.abandon(new Refusal("guest-failed", reason));
    ended({ how: "crashed", reason });
    // The other vCPUs must not go on. The order to one that has failed fails, and one that waits for a page never hears it: both are known.
    vcpus.pause().catch(() => undefined);
  };

  // A function, since state changes behind the back of the narrowing compiler.
  const current = (): State => state;
  const enter = (next: State): void => {
    // A thread may have ended while an operation was under way.
    if (current().tag === "failed") throw wrongState("go on");
    state = next;
  };
  const wrongState = (what: string): Refusal => {
    const now = current();
    if (now.tag === "failed") return new Refusal("guest-failed", now.reason);
    return new Refusal("wrong-state", `cannot ${what} a guest that is ${now.tag}`);
  };
  const serialize = serializer();

  const run = async (device: VcpuState): Promise<void> => {
    await vcpus.run();
    enter({ tag: "running", device });
    runningSince = performance.now();
  };

  const boot = async (workload: VcpuState["workload"]): Promise<void> => {
    const ledger = emptyLedger(pagesOfVcpus(workload, memoryBytes));
    const device = { workload, ledger, positions: Array.from({ length: workload.vcpus }, () => 0) };
    await vcpus.configure(device, "trust");
    await vcpus.fill();
    await run(device);
  };
  if (spec.role === "boot") await boot(spec.workload);

  const verified = (): VerifyReport => {
    if (sweep === null)
      throw new Refusal("wrong-state", "nothing to verify: this guest was not loaded from device state");
    const { pagesChecked, pagesBad } = vcpus.counts();
    return {
      done: sweep.isDone(),
      pagesChecked,
      pagesTotal: sweep.pages,
      badCount: pagesBad,
      bad: sweep.bad(),
    };
  };

  return {
    describe: () => ({
      name: spec.name,
      pid: process.pid,
      machine: MACHINE,
      version: process.version,
      runState: RUN_STATES[current().tag],
      block: {
        name: "ram0",
        lengthBytes: memoryBytes,
        path: spec.ramPath,
        hostPageBytes: ram.hostPageBytes,
        address: String(ram.address),
      },
      userfaultfd: ram.userfaultfd.armed,
      missingFd: ram.pages.fd(),
    }),
    stats: () => {
      const now = current();
      const { pagesWritten, pagesDropped } = vcpus.counts();
      return {
        runState: RUN_STATES[now.tag],
        pagesWritten,
        pagesDropped,
        ranMs: ranMs + (now.tag === "running" ? performance.now() - runningSince : 0),
        workload: "device" in now ? now.device.workload : null,
      };
    },
    verified,
    awaitVerified: async (signal) => {
      verified();
      await whileWanted(sweep?.finished, signal);
      return verified();
    },
    pause: () =>
      serialize(async () => {
        const now = current();
        if (now.tag === "failed") throw wrongState("pause");
        if (now.tag !== "running") return;
        await vcpus.pause();
        enter({ tag: "paused", device: { ...now.device, positions: vcpus.positions() } });
        ranMs += performance.now() - runningSince;
      }),
    resume: () =>
      serialize(async () => {
        const now = current();
        if (now.tag === "running") return;
        if (now.tag !== "paused" && now.tag !== "loaded") throw wrongState("resume");
        await run(now.device);
      }),
    reset: () =>
      serialize(async () => {
        const now = current();
        if (now.tag !== "running") throw wrongState("reset");
        await vcpus.pause();
        ranMs += performance.now() - runningSince;
        sweep?.abandon(new Refusal("wrong-state", "the guest was reset"));
        sweep = null;
        await boot(now.device.workload);
        log("reset");
      }),
    shutDown: () =>
      serialize(async () => {
        if (current().tag !== "running") throw wrongState("shut down");
        await vcpus.pause();
        enter({ tag: "shutdown" });
        ranMs += performance.now() - runningSince;
        ended({ how: "shutdown", reason: "the guest shut itself down" });
      }),
    save: (path) =>
      serialize(async () => {
        const now = current();
        if (now.tag !== "paused" && now.tag !== "loaded") throw wrongState("save");
        if (ram.pages.fd() !== null)
          throw new Refusal("wrong-state", "cannot save a guest whose pages are not all there");
        return writeDeviceState(path, encodeDeviceState(now.device, memoryBytes));
      }),
    load: (path) =>
      serialize(async () => {
        const now = current();
        if (now.tag !== "incoming" && now.tag !== "loaded") throw wrongState("load device state into");
        const device = decodeDeviceState(readDeviceState(path, memoryBytes), memoryBytes);
        await vcpus.configure(device, "verify");
        sweep?.abandon(new Refusal("wrong-state", "the guest was loaded again"));
        sweep = makeSweep(device.workload.vcpus, pagesOfVcpus(device.workload, memoryBytes));
        enter({ tag: "loaded", device });
      }),
    listen: () =>
      serialize(async () => {
        const listening = ram.pages.fd();
        if (listening !== null) return { fd: listening };
        const now = current();
        if (now.tag !== "incoming" && now.tag !== "loaded") throw wrongState("take pages later for");
        return { fd: ram.pages.listen() };
      }),
    // Not one after the other: a pause may wait for a page, and then for the word that it never comes.
    endListening: ram.pages.end,
    giveUp: (reason) => {
      if (current().tag === "failed") return;
      if (ram.pages.fd() === null) throw new Refusal("wrong-state", "all pages of this guest are there");
      fail(reason);
    },
    check: () =>
      serialize(async () => {
        const now = current();
        if (now.tag !== "paused" && now.tag !== "loaded") throw wrongState("check the memory of");
        return reportOfCheck(await vcpus.check());
      }),
  };
};

/** Runs what it is given one after the other; a failure concerns its own caller only. */
const serializer = (): (<A>(operation: () => Promise<A>) => Promise<A>) => {
  let last: Promise<unknown> = Promise.resolve();
  return (operation) => {
    const result = last.then(operation);
    last = result.catch(() => undefined);
    return result;
  };
};
