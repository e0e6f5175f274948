import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { probeMissingFaults, probeUserfaultfd } from "./abilities.ts";
import { borrowDescriptor } from "./borrowed-descriptor.ts";
import {
  copyPages,
  type MemoryRange,
  makeFaultReader,
  registerMissing,
  unregister,
  waitForFaults,
  wakePages,
  zeroPages,
} from "./missing-faults.ts";
import { PAGE_BYTES } from "./page.ts";
import { makeWrittenPageScanner, openPagemap } from "./pagemap.ts";
import { registerWriteProtect } from "./userfaultfd.ts";

const ability = probeMissingFaults();
const skipped = ability._tag === "Missing";
const tracked = probeUserfaultfd()._tag === "Works";
const title = skipped ? `missing pages (skipped: ${ability.reason})` : "missing pages";

const MODULE = fileURLToPath(new URL("./index.ts", import.meta.url));
const PAGES = 256;
/** A fault is there within microseconds; what has not come by then never will, ms. */
const FAULT_MS = 20_000;

/** A process with memory that is not there, and one thread for each page that it is told to touch. */
const GUEST = `
  const [module, path, pages] = process.argv.slice(1);
  const host = await import(module);
  const { Worker } = await import("node:worker_threads");
  host.allowAnyTracer();
  const lengthBytes = Number(pages) * host.PAGE_BYTES;
  const { address } = host.mapFile(host.createRamFile(path, lengthBytes), { offsetBytes: 0, lengthBytes }, "writable");
  let uffd;
  try { uffd = host.armOwnMemory([{ address, lengthBytes }]); host.registerMissing(uffd.fd, { address, lengthBytes }, "missing and written"); }
  catch { uffd = host.openUserfaultfd({ features: 0n }); host.registerMissing(uffd.fd, { address, lengthBytes }, "missing"); }
  const say = (what) => console.log(JSON.stringify(what));
  say({ fd: uffd.fd, address: String(address) });
  const thread = "import { parentPort, workerData } from 'node:worker_threads'; const [module, address, page] = workerData;" +
    "const { viewOf, PAGE_BYTES } = await import(module);" +
    "const bytes = new Uint8Array(viewOf(address + BigInt(page * PAGE_BYTES), PAGE_BYTES));" +
    "parentPort.postMessage([bytes[0]++, bytes[PAGE_BYTES - 1]]);";
  for await (const line of (await import("node:readline")).createInterface({ input: process.stdin })) {
    const page = Number(line);
    new Worker(thread, { eval: true, workerData: [module, address, page] }).on("message", (found) => say({ page, found }));
  }
`;
/**
 * Two threads that work between one touch and the next, and a registration that ends meanwhile: the kernel takes the longer for it, and
 * they come the surer to a touch in the middle of it, the more pages were write-protected.
 */
const RACE = `
  const [module, path] = process.argv.slice(1);
  const host = await import(module);
  const { Worker } = await import("node:worker_threads");
  const [TOUCHED, PROTECTED] = [20000, 65536];
  const lengthBytes = (TOUCHED + PROTECTED) * host.PAGE_BYTES;
  const { address } = host.mapFile(host.createRamFile(path, lengthBytes), { offsetBytes: 0, lengthBytes }, "writable");
  const uffd = host.armOwnMemory([{ address, lengthBytes }]);
  host.registerMissing(uffd.fd, { address, lengthBytes }, "missing and written");
  const at = (page) => address + BigInt(page * host.PAGE_BYTES);
  for (let page = TOUCHED; page < TOUCHED + PROTECTED; page += 256)
    host.copyPages(uffd.fd, at(page), new Uint8Array(256 * host.PAGE_BYTES).fill(1));
  host.makeWrittenPageScanner(host.openPagemap(process.pid)).scan(address, TOUCHED + PROTECTED);
  const thread = "import { workerData } from 'node:worker_threads'; const { viewOf, PAGE_BYTES } = await import(workerData.module);" +
    "const bytes = new Uint8Array(viewOf(workerData.address, workerData.pages * PAGE_BYTES));" +
    "for (let at = 0, n = 0; at < bytes.length; at += PAGE_BYTES) { bytes[at]++; for (let k = 0; k < 20000; k++) n += k; }";
  let left = 2;
  for (const half of [0, 1]) {
    const workerData = { module, address: at(half * TOUCHED / 2), pages: TOUCHED / 2 };
    new Worker(thread, { eval: true, workerData }).on("exit", () => { if (--left === 0) { console.log("nobody waits"); process.exit(); } });
  }
  const faults = host.makeFaultReader(uffd.fd);
  for (let answered = 0; answered < 400; await new Promise(setImmediate))
    if (host.waitForFaults(uffd.fd, 20)) for (const { address } of faults.read()) answered += host.zeroPages(uffd.fd, address, 1);
  host.unregister(uffd.fd, { address, lengthBytes });
`;
/** Takes the message of one fault, says so, and does no more. */
const FORGETFUL_HANDLER = `
  const [module, pid, fd] = process.argv.slice(1);
  const host = await import(module);
  const borrowed = host.borrowDescriptor(Number(pid), Number(fd));
  const reader = host.makeFaultReader(borrowed);
  let faults = [];
  while (faults.length === 0) if (host.waitForFaults(borrowed, 1000)) faults = reader.read();
  console.log("taken");
  setInterval(() => {}, 1000);
`;

const run = (program: string, ...args: ReadonlyArray<string>): ChildProcess =>
  spawn(process.execPath, ["--input-type=module", "-e", program, MODULE, ...args], {
    stdio: ["pipe", "pipe", "inherit"],
  });

interface Guest {
  readonly process: ChildProcess;
  /** The borrowed descriptor. */
  readonly fd: number;
  readonly ownFd: number;
  readonly memory: MemoryRange;
  /** Lets a thread touch a page; resolves with the first byte, which the thread then adds one to, and the last. */
  readonly touch: (page: number) => Promise<ReadonlyArray<number>>;
  readonly addressOf: (page: number) => bigint;
}

let directory: string;
let guest: Guest;

const startGuest = async (): Promise<Guest> => {
  const child = run(GUEST, `${directory}/ram`, String(PAGES));
  const waiting = new Map<number, (found: ReadonlyArray<number>) => void>();
  const ready = Promise.withResolvers<{ fd: number; address: string }>();
  createInterface({ input: child.stdout! }).on("line", (line) => {
    const said = JSON.parse(line);
    if ("fd" in said) ready.resolve(said);
    else waiting.get(said.page)?.(said.found);
  });
  const { fd, address } = await ready.promise;
  const memory = { address: BigInt(address), lengthBytes: PAGES * PAGE_BYTES };
  return {
    process: child,
    fd: borrowDescriptor(child.pid!, fd),
    ownFd: fd,
    memory,
    touch: (page) =>
      new Promise((resolve) => {
        waiting.set(page, resolve);
        child.stdin!.write(`${page}\n`);
      }),
    addressOf: (page) => memory.address + BigInt(page * PAGE_BYTES),
  };
};

/** The pages that threads wait for, `count` of them. The event loop of this process must not stand still meanwhile. */
const faultsOf = async ({ fd, memory }: Guest, count: number): Promise<number[]> => {
  const reader = makeFaultReader(fd);
  const pages = new Set<number>();
  for (const deadline = Date.now() + FAULT_MS; pages.size < count; ) {
    expect(Date.now()).toBeLessThan(deadline);
    await new Promise(setImmediate);
    if (waitForFaults(fd, 5))
      for (const { address } of reader.read()) pages.add(Number(address - memory.address) / PAGE_BYTES);
  }
  return [...pages].sort((a, b) => a - b);
};
const filled = (byte: number, pages = 1): Uint8Array => new Uint8Array(pages * PAGE_BYTES).fill(byte);

describe.skipIf(skipped)(title, () => {
  beforeEach(async () => {
    directory = mkdtempSync("/dev/shm/godwit-missing-");
    guest = await startGuest();
  });
  afterEach(async () => {
    closeSync(guest.fd);
    if (guest.process.exitCode === null && guest.process.signalCode === null) {
      const gone = once(guest.process, "exit");
      guest.process.kill("SIGKILL");
      await gone;
    }
    rmSync(directory, { recursive: true, force: true });
  });

  it("stop the threads that touch them, until another process places them", async () => {
    const touched = [guest.touch(3), guest.touch(7)];
    expect(await faultsOf(guest, 2)).toEqual([3, 7]);
    expect(copyPages(guest.fd, guest.addressOf(3), filled(42))).toBe(1);
    expect(await touched[0]).toEqual([42, 42]);
    expect(zeroPages(guest.fd, guest.addressOf(7), 1)).toBe(1);
    expect(await touched[1]).toEqual([0, 0]);
  });

  it("are no fault once they were placed ahead of any touch", async () => {
    expect(copyPages(guest.fd, guest.addressOf(0), filled(9, 16))).toBe(16);
    expect(await guest.touch(15)).toEqual([9, 9]);
    expect(makeFaultReader(guest.fd).read()).toEqual([]);
    expect(waitForFaults(guest.fd, 0)).toBe(false);
  });

  it("that are there are left alone, the others of the same run are placed, and waiters of both are woken", async () => {
    copyPages(guest.fd, guest.addressOf(5), filled(1));
    expect(await guest.touch(5)).toEqual([1, 1]);
    const waiting = guest.touch(6);
    await faultsOf(guest, 1);
    expect(copyPages(guest.fd, guest.addressOf(4), filled(8, 4))).toBe(3);
    expect(await waiting).toEqual([8, 8]);
    expect(await guest.touch(5)).toEqual([2, 1]);
    expect(zeroPages(guest.fd, guest.addressOf(4), 5)).toBe(1);
    expect(copyPages(guest.fd, guest.addressOf(4), filled(7, 4))).toBe(0);
  });

  it("keep a thread waiting when their handler is killed; the next one hears of them by waking all", async () => {
    const handler = run(FORGETFUL_HANDLER, String(guest.process.pid), String(guest.ownFd));
    const taken = once(handler.stdout!, "data");
    const touched = guest.touch(11);
    await taken;
    const gone = once(handler, "exit");
    handler.kill("SIGKILL");
    await gone;
    // The message is gone with its reader, the thread still waits: for the page, not for a zero.
    expect(makeFaultReader(guest.fd).read()).toEqual([]);
    wakePages(guest.fd, guest.memory);
    expect(await faultsOf(guest, 1)).toEqual([11]);
    copyPages(guest.fd, guest.addressOf(11), filled(77));
    expect(await touched).toEqual([77, 77]);
  });

  it("are zeros, and cost no fault, once the memory is no longer registered", async () => {
    const waiting = guest.touch(1);
    await faultsOf(guest, 1);
    unregister(guest.fd, guest.memory);
    expect(await waiting).toEqual([0, 0]);
    expect(await guest.touch(2)).toEqual([0, 0]);
    expect(() => copyPages(guest.fd, guest.addressOf(9), filled(1))).toThrow(/UFFDIO_COPY.*ENOENT/);
  });

  it.skipIf(!tracked)("leave nobody waiting who touches one while the registration ends", async () => {
    const child = run(RACE, `${directory}/race`);
    const [said] = await once(child.stdout!, "data", { signal: AbortSignal.timeout(FAULT_MS) }).catch(() => {
      child.kill("SIGKILL");
      return ["a thread waits for ever"];
    });
    expect(String(said)).toBe("nobody waits\n");
  });

  it.skipIf(!tracked)(
    "are tracked like all others once they are placed, while and after others are missing",
    async () => {
      const pagemap = openPagemap(guest.process.pid!);
      const scanner = makeWrittenPageScanner(pagemap);
      const scan = (): number[] => {
        const { runs, runCount } = scanner.scan(guest.memory.address, PAGES);
        return [...runs.subarray(0, runCount * 2)];
      };
      copyPages(guest.fd, guest.addressOf(0), filled(5, PAGES));
      scan();
      expect(await guest.touch(20)).toEqual([5, 5]);
      expect(scan()).toEqual([20, 1]);
      unregister(guest.fd, guest.memory);
      registerWriteProtect(guest.fd, guest.memory.address, guest.memory.lengthBytes);
      // Nothing may count as clean that was written in between.
      expect(scan()).toEqual([0, PAGES]);
      expect(await guest.touch(30)).toEqual([5, 5]);
      expect(scan()).toEqual([30, 1]);
      pagemap.close();
    },
  );

  it("of a process that is gone fail with ESRCH, those of no registration with ENOENT", async () => {
    expect(() => registerMissing(guest.fd, { address: 0n, lengthBytes: PAGE_BYTES }, "missing")).toThrow(/EINVAL/);
    const gone = once(guest.process, "exit");
    guest.process.kill("SIGKILL");
    await gone;
    expect(() => copyPages(guest.fd, guest.addressOf(0), filled(1))).toThrow(/ESRCH/);
    expect(() => zeroPages(guest.fd, guest.addressOf(0), 1)).toThrow(/ESRCH/);
  });

  it("are asked for in whole pages", () => {
    expect(() => copyPages(guest.fd, guest.addressOf(0), new Uint8Array(100))).toThrow(RangeError);
    expect(() => zeroPages(guest.fd, guest.addressOf(0), 0)).toThrow(RangeError);
  });
});
