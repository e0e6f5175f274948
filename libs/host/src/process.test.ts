import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, readFileSync, rmSync, unlinkSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { openFreezer } from "./frozen-process.ts";
import { HostError } from "./host-error.ts";
import { mapFile } from "./mapping.ts";
import { PAGE_BYTES } from "./page.ts";
import { allowAnyTracer, peerCredentials } from "./process-control.ts";
import { findFileMappings, findMappedRange, identifyFile, mapsFileAt, parseMaps } from "./process-maps.ts";
import { parseStat, readStat, readThreadStats } from "./process-state.ts";
import { createRamFile } from "./ram-file.ts";

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

const HOST_MODULE = fileURLToPath(new URL("./index.ts", import.meta.url));

/** Starts a Node program that has @godwit/host as `host`, and waits for its first line. */
const startProgram = async (body: string, ...parameters: string[]): Promise<ChildProcess> =>
  (await startAndListen(body, ...parameters)).child;

const startAndListen = async (body: string, ...parameters: string[]) => {
  const program = `const host = await import(process.argv[1]); ${body}`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program, HOST_MODULE, ...parameters], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  children.push(child);
  const [line] = (await once(child.stdout!, "data")) as [Buffer];
  return { child, line: line.toString().trim() };
};

const BUSY = 'console.log("ready"); setInterval(() => {}, 1)';

describe("the maps of a process", () => {
  it("are parsed with names that hold spaces, and refused when a line is none", () => {
    const text = [
      "7f00deadb000-7f00deadd000 rw-s 00001000 00:1a 4242                       /dev/shm/my ram (deleted)",
      "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]",
      "7ffd00000000-7ffd00001000 rw-p 00000000 00:00 0 ",
      "",
    ].join("\n");
    expect(parseMaps(text)).toEqual([
      {
        address: 0x7f00deadb000n,
        lengthBytes: 2 * PAGE_BYTES,
        readable: true,
        writable: true,
        shared: true,
        fileOffset: PAGE_BYTES,
        device: "00:1a",
        inode: 4242n,
        label: "/dev/shm/my ram (deleted)",
      },
      expect.objectContaining({ address: 0xffffffffff600000n, readable: false, shared: false, label: "[vsyscall]" }),
      expect.objectContaining({ inode: 0n, label: "" }),
    ]);
    expect(() => parseMaps("nonsense\n")).toThrow(HostError);
  });

  it("tell where a file is mapped, also after its name is gone", () => {
    const directory = mkdtempSync("/dev/shm/godwit-maps-");
    const path = join(directory, "ram");
    const fd = createRamFile(path, 8 * PAGE_BYTES);
    const mapping = mapFile(fd, { offsetBytes: PAGE_BYTES, lengthBytes: 6 * PAGE_BYTES }, "writable");
    const readOnly = mapFile(fd, { offsetBytes: 0, lengthBytes: 8 * PAGE_BYTES }, "read-only");
    const file = identifyFile(path);
    const byDescriptor = identifyFile(`/proc/${process.pid}/fd/${fd}`);
    expect(byDescriptor).toEqual(file);
    unlinkSync(path);
    const { address, lengthBytes } = mapping;
    expect(findFileMappings(process.pid, file)).toEqual([{ address, lengthBytes, fileOffset: PAGE_BYTES }]);
    const range = { fileOffset: 2 * PAGE_BYTES, lengthBytes: PAGE_BYTES };
    expect(findMappedRange(process.pid, file, range)).toBe(address + 4096n);
    expect(mapsFileAt(process.pid, file, { ...range, address: address + 4096n })).toBe(true);
    expect(mapsFileAt(process.pid, file, { ...range, address })).toBe(false);
    expect(findMappedRange(process.pid, file, { fileOffset: 0, lengthBytes: PAGE_BYTES })).toBeNull();
    readOnly.unmap();
    mapping.unmap();
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });

  it("of a process that is not there fail with ENOENT", () => {
    expect(() => findFileMappings(2 ** 22 + 1, { device: "00:00", inode: 1n })).toThrow(/ENOENT/);
  });
});

describe("the state of a process", () => {
  it("is parsed behind a name with spaces and parentheses", () => {
    const rest = Array.from({ length: 30 }, (_, field) => field + 4).join(" ");
    expect(parseStat(`42 (a) (b c) S ${rest}`)).toEqual({ name: "a) (b c", state: "S", startTicks: 22 });
    expect(readStat(process.pid)).toMatchObject({ state: "R" });
  });
});

describe("the peer of a unix socket", () => {
  it("is named by pid and uid", async () => {
    const directory = mkdtempSync("/tmp/godwit-peer-");
    const path = join(directory, "socket");
    const server = createServer().listen(path);
    await once(server, "listening");
    const accepted = once(server, "connection") as Promise<[Socket]>;
    const client = createConnection(path);
    const [socket] = await accepted;
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    expect(peerCredentials(fd)).toEqual({ pid: process.pid, uid: process.getuid!(), gid: process.getgid!() });
    client.destroy();
    socket.destroy();
    server.close();
    rmSync(directory, { recursive: true });
  });
});

describe("letting any process of the user attach", () => {
  it("says whether this kernel has such a limit at all", () => {
    const yama = (() => {
      try {
        readFileSync("/proc/sys/kernel/yama/ptrace_scope");
        return true;
      } catch {
        return false;
      }
    })();
    expect(allowAnyTracer()).toBe(yama);
  });
});

describe("a frozen process", () => {
  const states = (pid: number) => new Set(readThreadStats(pid).map((thread) => thread.state));

  it("has no running thread while the body runs, and goes on afterwards, also when the body throws", async () => {
    const child = await startProgram(BUSY);
    const freezer = openFreezer(child.pid!);
    expect(freezer.whileFrozen(() => [...states(child.pid!)])).toEqual(["T"]);
    expect(states(child.pid!).has("T")).toBe(false);
    expect(() =>
      freezer.whileFrozen(() => {
        throw new Error("body");
      }),
    ).toThrow("body");
    expect(states(child.pid!).has("T")).toBe(false);
    freezer.close();
  });

  it("stays stopped when somebody else had stopped it before", async () => {
    const child = await startProgram(BUSY);
    process.kill(child.pid!, "SIGSTOP");
    while ([...states(child.pid!)].join() !== "T") await new Promise(setImmediate);
    const freezer = openFreezer(child.pid!);
    freezer.whileFrozen(() => {});
    expect([...states(child.pid!)]).toEqual(["T"]);
    freezer.close();
  });

  it("goes on when the process that froze it is killed in the middle", async () => {
    const child = await startProgram(BUSY);
    const tracker = await startProgram(
      `host.openFreezer(Number(process.argv[2])).whileFrozen(() => {
        console.log("frozen");
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
      })`,
      String(child.pid),
    );
    expect([...states(child.pid!)]).toEqual(["T"]);
    tracker.kill("SIGKILL");
    await once(tracker, "exit");
    while (states(child.pid!).has("T")) await new Promise(setImmediate);
    expect(states(child.pid!).has("T")).toBe(false);
  });

  it("that has ended cannot be frozen", async () => {
    const child = await startProgram(BUSY);
    const freezer = openFreezer(child.pid!);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(() => freezer.whileFrozen(() => {})).toThrow(/ENOENT/);
    freezer.close();
  });
});

describe("a process that asked for a signal at its parent's death", () => {
  it("learns when the parent is gone already", async () => {
    const { line } = await startAndListen(
      `const answers = [host.signalOnParentDeath(15, process.ppid + 1), host.signalOnParentDeath(15, process.ppid)];
       console.log(answers.join());
       setInterval(() => {}, 1000)`,
    );
    expect(line).toBe("false,true");
  });
});
