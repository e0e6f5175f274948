import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { borrowDescriptor } from "./borrowed-descriptor.ts";
import { errnoName, errnoOf, HostError } from "./host-error.ts";
import { ioctl } from "./ioctl.ts";
import { openIoctlThread } from "./ioctl-thread.ts";

/** Bytes that can be read (include/uapi/asm-generic/ioctls.h): every pipe and file has it. */
const FIONREAD = 0x541b;
const directory = mkdtempSync(join(tmpdir(), "godwit-ioctl-"));
const path = join(directory, "file");
writeFileSync(path, "godwit");
afterAll(() => rmSync(directory, { recursive: true }));

const withFile = async <A>(body: (fd: number) => A | Promise<A>): Promise<A> => {
  const fd = openSync(path, "r");
  try {
    return await body(fd);
  } finally {
    closeSync(fd);
  }
};

const failureOf = async (promise: Promise<unknown>): Promise<HostError> => {
  const error = await promise.then(
    () => null,
    (error: unknown) => error,
  );
  if (!(error instanceof HostError)) throw new Error(`expected a HostError, got ${error}`);
  return error;
};

describe("ioctl", () => {
  it("hands the structure to the kernel and back", () =>
    withFile((fd) => {
      const argument = new Uint8Array(4);
      expect(ioctl({ fd, name: "FIONREAD", request: FIONREAD, argument })).toBe(0);
      expect([...argument]).toEqual([6, 0, 0, 0]);
    }));

  it("puts addresses into the structure", () =>
    withFile((fd) => {
      const argument = new Uint8Array(24);
      const memory = new Uint8Array(64);
      // The request is none that a file knows; the structure was filled before the kernel saw it.
      const call = { fd, name: "NONE", request: 0x3b6f, argument, pointees: [{ at: 8, memory }] };
      expect(() => ioctl(call)).toThrow(expect.objectContaining({ errno: "ENOTTY", operation: "ioctl(NONE)" }));
      const words = new BigUint64Array(argument.buffer);
      expect([words[0], words[2]]).toEqual([0n, 0n]);
      expect(words[1]).not.toBe(0n);
    }));
});

describe("a thread for ioctls", () => {
  it("answers in order, with copies, and keeps the errno of each call", async () => {
    const thread = openIoctlThread();
    try {
      await withFile(async (fd) => {
        const argument = new Uint8Array(4);
        const asked = [
          thread.call({ fd, name: "FIONREAD", request: FIONREAD, argument }),
          failureOf(thread.call({ fd, name: "NONE", request: 0x3b6f, argument: 0n })),
          failureOf(thread.call({ fd: -1, name: "FIONREAD", request: FIONREAD, argument })),
        ] as const;
        const [answer, unknown, closed] = await Promise.all(asked);
        expect(answer.result).toBe(0);
        expect([...answer.argument]).toEqual([6, 0, 0, 0]);
        expect([...argument]).toEqual([0, 0, 0, 0]);
        expect([unknown.errno, unknown.operation]).toEqual(["ENOTTY", "ioctl(NONE)"]);
        expect(closed.errno).toBe("EBADF");
      });
    } finally {
      thread.close();
    }
  });

  it("refuses calls once it is closed, and fails those that wait", async () => {
    const thread = openIoctlThread();
    const waiting = failureOf(thread.call({ fd: -1, name: "FIONREAD", request: FIONREAD, argument: 0n }));
    thread.close();
    expect((await waiting).errno).toBe("ECANCELED");
    expect((await failureOf(thread.call({ fd: -1, name: "X", request: 1, argument: 0n }))).errno).toBe("ECANCELED");
  });
});

describe("a borrowed descriptor", () => {
  it("is the other process's open file", async () => {
    const child = spawn("/bin/sh", ["-c", `exec 7< ${path}; echo ready; read line; read rest <&7; echo "$rest"`]);
    await once(child.stdout, "data");
    const fd = borrowDescriptor(child.pid!, 7);
    try {
      // They share one position: what is read here is gone there.
      const text = readFileSync(fd, "utf8");
      expect(text).toBe("godwit");
    } finally {
      closeSync(fd);
    }
    child.stdin.end("go\n");
    const [said] = (await once(child.stdout, "data")) as [Buffer];
    expect(said.toString()).toBe("\n");
  });

  it("is refused by the errno: no process, no descriptor", () => {
    expect(() => borrowDescriptor(2 ** 22, 0)).toThrow(expect.objectContaining({ errno: "ESRCH" }));
    expect(() => borrowDescriptor(process.pid, 9999)).toThrow(expect.objectContaining({ errno: "EBADF" }));
  });
});

describe("errno names that Node does not know", () => {
  it("are known here, from a number and from what node:fs throws", () => {
    expect(errnoName(42)).toBe("ENOMSG");
    const thrown = Object.assign(new Error(), { errno: -77, code: "Unknown system error -77" });
    expect(errnoOf(thrown)).toBe("EBADFD");
    expect(new HostError("read", "ENOMSG").message).toBe("read: no message of desired type (ENOMSG)");
  });
});
