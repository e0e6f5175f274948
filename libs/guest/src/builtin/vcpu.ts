/**
 * A vCPU: a thread that writes its share of guest memory at a steady rate, and after a load checks each page of it before
 * it first writes that page.
 *
 * Invariant: between two commands the ledger and the pages agree, since a page and its ledger entry are written without a
 * look at the doorbell in between. So a vCPU that has answered `pause` has left no page half written.
 */

import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { viewOf } from "@godwit/host";
import { diagnose } from "./kernel/diagnosis.ts";
import { fillPage, PAGE_BYTES, PAGE_WORDS, pageMatches } from "./kernel/page.ts";
import { type Walk, walkOf } from "./share.ts";
import {
  type CheckResult,
  FINDINGS_MAX,
  type Finding,
  PAGES_BAD,
  PAGES_CHECKED,
  PAGES_DROPPED,
  PAGES_WRITTEN,
  POSITION,
  type VcpuCommand,
  type VcpuConfiguration,
  type VcpuReport,
  type VcpuStart,
} from "./vcpu-messages.ts";

/** Writes that may be made up for after a stall, ms of the rate: a guest that was held up does not do all it missed. */
const BACKLOG_MS = 100;
/** The shortest sleep, ms: the timers of a host are no finer, and pages due meanwhile are written in one go. */
const SLEEP_MS_MIN = 1;

/**
 * The sweep checks this many pages (1 MiB, under half a ms) and then rests for SLEEP_MS_MIN: right after a switchover the
 * loader needs the processors too, and the time it takes then is downtime.
 */
const SWEEP_PAGES = 256;

/** What `configure` makes of a configuration. Indices of pages are within the share ("local"), save where said otherwise. */
interface Vcpu {
  readonly configuration: VcpuConfiguration;
  readonly words: Int32Array;
  readonly ledger: Uint32Array;
  readonly counters: Float64Array;
  readonly walk: Walk;
  /** 1 for each page that was checked since the load. */
  readonly checked: Uint8Array;
  /** The next page the sweep looks at; `pageCount` when it is done. */
  sweep: number;
}

const port = parentPort as MessagePort;
const start = workerData as VcpuStart;
const doorbell = new Int32Array(start.doorbell);
const report = (message: VcpuReport): void => port.postMessage(message);

const makeVcpu = (configuration: VcpuConfiguration): Vcpu => {
  const { share } = configuration;
  const address = start.address + BigInt(share.firstPage) * BigInt(PAGE_BYTES);
  return {
    configuration,
    words: new Int32Array(viewOf(address, share.pageCount * PAGE_BYTES)),
    ledger: new Uint32Array(configuration.ledger, share.firstPage * 4, share.pageCount),
    counters: new Float64Array(configuration.counters),
    walk: walkOf(share.workingPages),
    checked: new Uint8Array(configuration.verify ? share.pageCount : 0),
    sweep: configuration.verify ? 0 : share.pageCount,
  };
};

const fill = (vcpu: Vcpu): void => {
  const { recipe, share } = vcpu.configuration;
  for (let page = 0; page < share.pageCount; page++) {
    fillPage(recipe, vcpu.words, page * PAGE_WORDS, share.firstPage + page, 1);
    vcpu.ledger[page] = 1;
  }
};

/** Null when the page is what the ledger says. */
const inspect = (vcpu: Vcpu, page: number, diagnosed: boolean): Finding | "bad" | null => {
  const { recipe, share } = vcpu.configuration;
  const expectedVersion = vcpu.ledger[page]!;
  const offset = page * PAGE_WORDS;
  const number = share.firstPage + page;
  if (pageMatches(recipe, vcpu.words, offset, number, expectedVersion)) return null;
  if (!diagnosed) return "bad";
  return { page: number, expectedVersion, found: diagnose(recipe, vcpu.words, offset, number, expectedVersion) };
};

/** Checks every page, and remembers nothing of it. */
const check = (vcpu: Vcpu): CheckResult => {
  const { pageCount } = vcpu.configuration.share;
  const bad: Array<Finding> = [];
  let badCount = 0;
  for (let page = 0; page < pageCount; page++) {
    const finding = inspect(vcpu, page, bad.length < FINDINGS_MAX);
    if (finding === null) continue;
    badCount++;
    if (finding !== "bad") bad.push(finding);
  }
  return { pagesChecked: pageCount, badCount, bad };
};

/** Checks a page for the first time since the load, and reports it if it is bad. */
const verify = (vcpu: Vcpu, page: number): void => {
  vcpu.checked[page] = 1;
  const finding = inspect(vcpu, page, vcpu.counters[PAGES_BAD]! < FINDINGS_MAX);
  vcpu.counters[PAGES_CHECKED]!++;
  if (finding === null) return;
  vcpu.counters[PAGES_BAD]!++;
  if (finding !== "bad") report({ event: "found", finding });
};

const isSweeping = (vcpu: Vcpu): boolean => vcpu.sweep < vcpu.configuration.share.pageCount;

const sweepOnePage = (vcpu: Vcpu): void => {
  if (vcpu.checked[vcpu.sweep] === 0) verify(vcpu, vcpu.sweep);
  vcpu.sweep++;
  if (!isSweeping(vcpu)) report({ event: "swept" });
};

/** Gives the next page of the walk its next version. */
const writeOnePage = (vcpu: Vcpu): void => {
  let page = -1;
  while (page < 0) page = vcpu.walk.pageAt(vcpu.counters[POSITION]!++);
  if (isSweeping(vcpu) && vcpu.checked[page] === 0) verify(vcpu, page);
  // Version 0 means "never filled"; a page written 2^32 times goes on with 1.
  const version = (vcpu.ledger[page]! + 1) >>> 0 || 1;
  fillPage(
    vcpu.configuration.recipe,
    vcpu.words,
    page * PAGE_WORDS,
    vcpu.configuration.share.firstPage + page,
    version,
  );
  vcpu.ledger[page] = version;
  vcpu.counters[PAGES_WRITTEN]!++;
};

/** Writes and sweeps until the doorbell rings. */
const runUntilRung = (vcpu: Vcpu, heard: number): void => {
  const { pagesPerMs } = vcpu.configuration;
  let since = performance.now();
  let written = 0;
  while (Atomics.load(doorbell, 0) === heard) {
    let due = (performance.now() - since) * pagesPerMs - written;
    const surplus = due - Math.max(1, pagesPerMs * BACKLOG_MS);
    if (surplus > 0) {
      since += surplus / pagesPerMs;
      due -= surplus;
      vcpu.counters[PAGES_DROPPED]! += surplus;
    }
    if (due >= 1) {
      writeOnePage(vcpu);
      written++;
    }
    // The sweep takes the time that writing leaves, and one page for each page written when it leaves none.
    if (isSweeping(vcpu)) {
      sweepOnePage(vcpu);
      if (vcpu.sweep % SWEEP_PAGES === 0) Atomics.wait(doorbell, 0, heard, SLEEP_MS_MIN);
    } else if (due < 1) Atomics.wait(doorbell, 0, heard, Math.max(SLEEP_MS_MIN, (1 - due) / pagesPerMs));
  }
};

const requireVcpu = (vcpu: Vcpu | null): Vcpu => {
  if (vcpu === null) throw new Error("a vCPU was commanded before it was configured");
  return vcpu;
};

const main = (): never => {
  let vcpu: Vcpu | null = null;
  let running = false;
  let heard = 0;
  report({ event: "ready" });
  for (;;) {
    if (running) runUntilRung(requireVcpu(vcpu), heard);
    else Atomics.wait(doorbell, 0, heard);
    // Before the messages are taken: one that comes in between rings again.
    heard = Atomics.load(doorbell, 0);
    for (;;) {
      const received = receiveMessageOnPort(port);
      if (received === undefined) break;
      const { id, command } = received.message as { readonly id: number; readonly command: VcpuCommand };
      let result: CheckResult | null = null;
      switch (command.op) {
        case "configure":
          vcpu = makeVcpu(command.configuration);
          break;
        case "fill":
          fill(requireVcpu(vcpu));
          break;
        case "run":
          running = true;
          break;
        case "pause":
          running = false;
          break;
        case "check":
          result = check(requireVcpu(vcpu));
          break;
      }
      report({ event: "done", id, result });
    }
  }
};

main();
