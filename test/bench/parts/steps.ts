/** What each step of a page's way costs alone, in one process that does nothing else. */

import { randomBytes } from "node:crypto";
import { closeSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { encodeXbzrle, PAGE_BYTES } from "@godwit/memory";
import { DELTA_BYTES_MAX } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { shortenPages } from "../../../services/multifd-worker/src/kernel/shorten.ts";
import { MESSAGE_PAYLOAD_BYTES } from "../bare/sizes.ts";
import { claimFreeMemory } from "../free-memory.ts";
import type { BenchOptions, Part, Result } from "../part.ts";

const GIB = 1024 ** 3;
/** Payloads in turn: guest memory does not stay in a processor's cache. */
const PAYLOADS = 64;
const DIRECTORY = "/dev/shm";
const PAGES = MESSAGE_PAYLOAD_BYTES / PAGE_BYTES;
const zeroMap = new Uint8Array(PAGES / 8);
/** What was sent of pages before, and what has become of them. */
const sent = randomBytes(MESSAGE_PAYLOAD_BYTES);
const changed = Buffer.from(sent);
for (let at = 0; at < changed.length; at += 1024) changed[at]! ^= 1;
const delta = new Uint8Array(DELTA_BYTES_MAX);

const encodeAll = (before: Buffer, now: Buffer): void => {
  for (let at = 0; at < now.length; at += PAGE_BYTES)
    encodeXbzrle(before.subarray(at, at + PAGE_BYTES), now.subarray(at, at + PAGE_BYTES), delta, DELTA_BYTES_MAX);
};

const run = Effect.fnUntraced(function* ({ quick }: BenchOptions) {
  const bytes = (quick ? 1 / 8 : 1) * GIB;
  const path = join(DIRECTORY, `godwit-bench-steps-${process.pid}`);
  const payloads = Array.from({ length: PAYLOADS }, () => randomBytes(MESSAGE_PAYLOAD_BYTES));
  const target = Buffer.allocUnsafeSlow(MESSAGE_PAYLOAD_BYTES);
  claimFreeMemory(DIRECTORY, bytes);
  const fd = yield* Effect.acquireRelease(
    Effect.sync(() => openSync(path, "w+", 0o600)),
    (opened) =>
      Effect.sync(() => {
        closeSync(opened);
        rmSync(path, { force: true });
      }),
  );
  const write = (payload: Buffer, at: number) => writeSync(fd, payload, 0, payload.length, at);
  const steps: ReadonlyArray<readonly [string, (payload: Buffer, at: number) => unknown]> = [
    ["pwrite to fresh pages of a tmpfs", write],
    ["pwrite to pages that are there", write],
    ["pread", (_, at) => readSync(fd, target, 0, target.length, at)],
    ["crc32", (payload) => crc32(payload)],
    ["a copy in memory", (payload) => target.set(payload)],
    [
      "to look for equal pages",
      (payload) => shortenPages(payload, 0, PAGES, { normalPages: PAGES, zeroMap }, null, null),
    ],
    ["a delta of four bytes for each page", () => encodeAll(sent, changed)],
    ["a delta that is given up for each page", (payload) => encodeAll(sent, payload)],
  ];
  const figures = steps.map(([name, step]) => {
    const before = process.cpuUsage();
    for (let at = 0, n = 0; at < bytes; at += MESSAGE_PAYLOAD_BYTES, n++) step(payloads[n % PAYLOADS]!, at);
    const { user, system } = process.cpuUsage(before);
    return { name, secondsPerGib: ((user + system) / 1e6) * (GIB / bytes) };
  });
  const result: Result = {
    isComplete: true,
    notes: [`${bytes / 1024 ** 2} MiB of random bytes in payloads of ${MESSAGE_PAYLOAD_BYTES} bytes, once each.`],
    tables: [
      {
        titles: ["step", "CPU s/GiB"],
        rows: figures.map(({ name, secondsPerGib }) => [name, secondsPerGib.toFixed(2)]),
      },
    ],
    figures,
  };
  return result;
});

export const steps: Part = { name: "steps", title: "What each step costs alone", run };
