import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PARAMETER_DEFAULTS } from "@godwit/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  createSessionFile,
  leftSessions,
  removeSession,
  reopenSessionFile,
  type SessionFacts,
} from "./session-file.ts";

const isRoot = process.getuid?.() === 0;
const WORDS = 100;
const facts = (change: Partial<Record<keyof SessionFacts, unknown>> = {}): SessionFacts =>
  ({
    migration: "0123456789abcdef",
    guest: "vm1",
    source: "a",
    incarnation: "f".repeat(16),
    life: 0,
    epoch: 3,
    term: 1,
    offer: { version: 1, driver: "builtin", machine: "m", hypervisor: "h", running: true, blocks: [] },
    memory: { boot: "b", pid: 7, files: ["00:2a:1"] },
    parameters: PARAMETER_DEFAULTS,
    capabilities: {},
    ...change,
  }) as SessionFacts;

let runtime: string;
beforeEach(() => {
  runtime = mkdtempSync("/dev/shm/godwit-session-");
});
afterEach(() => rmSync(runtime, { recursive: true, force: true }));
const files = (): string[] => readdirSync(join(runtime, "incoming")).sort();

describe("the file of a session", () => {
  it("is found by a successor with its facts, and with every word as it was left", () => {
    const first = createSessionFile(runtime, facts(), WORDS);
    first.words[0] = 7;
    first.words[WORDS - 1] = 0xffff_ffff;
    first.close();
    expect(leftSessions(runtime)).toEqual([facts()]);
    const second = reopenSessionFile(runtime, facts({ life: 1 }), WORDS);
    expect(second?.words[0]).toBe(7);
    expect(second?.words[WORDS - 1]).toBe(0xffff_ffff);
    expect(leftSessions(runtime)).toEqual([facts({ life: 1 })]);
    second?.close();
  });

  it("keeps what was written when its process is killed", async () => {
    const script = `
      const { createSessionFile } = await import(${JSON.stringify(join(import.meta.dirname, "session-file.ts"))});
      const file = createSessionFile(process.argv[1], JSON.parse(process.argv[2]), ${WORDS});
      file.words[5] = 42;
      process.kill(process.pid, "SIGKILL");`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script, runtime, JSON.stringify(facts())]);
    await new Promise((resolve) => child.once("exit", resolve));
    const successor = reopenSessionFile(runtime, facts(), WORDS);
    expect(successor?.words[5]).toBe(42);
    successor?.close();
  });

  it("is nobody else's while its loader lives: one that only sleeps must not be replaced", () => {
    const first = createSessionFile(runtime, facts(), WORDS);
    expect(reopenSessionFile(runtime, facts(), WORDS)).toBeNull();
    first.close();
    const second = reopenSessionFile(runtime, facts(), WORDS);
    expect(second).not.toBeNull();
    second?.close();
  });

  it("that is cut short is not gone on with", () => {
    createSessionFile(runtime, facts(), WORDS).close();
    writeFileSync(join(runtime, "incoming", "0123456789abcdef-3.fence"), "short");
    expect(reopenSessionFile(runtime, facts(), WORDS)).toBeNull();
  });

  it("is not gone on with in other memory", () => {
    createSessionFile(runtime, facts(), WORDS).close();
    for (const other of [{ boot: "c" }, { pid: 8 }, { files: ["00:2a:2"] }]) {
      const memory = { ...facts().memory, ...other };
      expect(reopenSessionFile(runtime, facts({ life: 1, memory }), WORDS)).toBeNull();
    }
    expect(leftSessions(runtime)).toEqual([facts()]);
  });

  it("begins empty, and takes the place of earlier attempts of its migration", () => {
    const old = createSessionFile(runtime, facts(), WORDS);
    old.words.fill(9);
    old.close();
    writeFileSync(join(runtime, "incoming", "fedcba9876543210-1"), "another migration's");
    const next = createSessionFile(runtime, facts({ epoch: 4 }), WORDS);
    expect(next.words.every((word) => word === 0)).toBe(true);
    expect(files()).toEqual(["0123456789abcdef-4.fence", "0123456789abcdef-4.session", "fedcba9876543210-1"]);
    next.close();
  });

  it("has its room from the start: a full file system is an error, and no SIGBUS later", () => {
    createSessionFile(runtime, facts(), 5000).close();
    const { size, blocks } = statSync(join(runtime, "incoming", "0123456789abcdef-3.fence"));
    expect(size).toBe(20_000);
    expect(blocks * 512).toBeGreaterThanOrEqual(size);
  });

  it.skipIf(!isRoot)("that finds no room leaves nothing (needs root to mount a small tmpfs)", () => {
    const small = join(runtime, "small");
    mkdirSync(small);
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${64 * 1024}`, "tmpfs", small]);
    try {
      expect(() => createSessionFile(small, facts(), 32 * 1024)).toThrow(/ENOSPC/);
      expect(readdirSync(join(small, "incoming"))).toEqual([]);
      // Room for the fence, and none for the facts.
      expect(() => createSessionFile(small, facts(), 16 * 1024)).toThrow(/ENOSPC/);
      expect(readdirSync(join(small, "incoming"))).toEqual([]);
      expect(readFileSync("/proc/self/maps", "utf8")).not.toContain(small);
    } finally {
      execFileSync("umount", ["--lazy", small]);
    }
  });

  it("leaves nothing once it is over", () => {
    const first = createSessionFile(runtime, facts(), WORDS);
    writeFileSync(first.deviceStatePath, "device state");
    first.remove();
    createSessionFile(runtime, facts(), WORDS).close();
    removeSession(runtime, facts());
    expect(files()).toEqual([]);
  });

  it("that is malformed, or device state without one, is removed", () => {
    expect(leftSessions(runtime)).toEqual([]);
    writeFileSync(join(runtime, "incoming", "0123456789abcdef-1.session"), "{");
    writeFileSync(join(runtime, "incoming", "0123456789abcdef-1"), "device state");
    expect(leftSessions(runtime)).toEqual([]);
    expect(files()).toEqual([]);
  });
});
