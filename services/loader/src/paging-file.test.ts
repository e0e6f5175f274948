import { closeSync, mkdtempSync, openSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { differenceOf, forgetPaging, identityOf, leftPagings, notePaging, type PagingFacts } from "./paging-file.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "godwit-paging-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const factsOf = (guest: string, id: string): PagingFacts => ({
  asked: {
    id: id as PagingFacts["asked"]["id"],
    guest,
    uri: `file:${guest}`,
    parameters: { "max-postcopy-bandwidth": 5 },
    capabilities: {},
    stop: false,
    takeOver: false,
    lazy: true,
  },
  startedAt: 1.7e12,
  memory: { boot: "this", pid: 7, files: ["00:1:99"] },
  place: { path: `/backup/${guest}`, start: 0 },
  checkpoint: { device: "2049", inode: "9007199254740993", bytes: 1e6, fingerprint: 2 ** 32 - 1 },
  restBytesPerSecond: 5,
});
const ONE = "0123456789abcdef";
const OTHER = "fedcba9876543210";

describe("what is noted of a guest that waits for pages", () => {
  it("is found again as it was, until it is forgotten", () => {
    notePaging(directory, factsOf("vm1", ONE));
    notePaging(directory, factsOf("vm2", OTHER));
    expect(leftPagings(directory)).toEqual([factsOf("vm1", ONE), factsOf("vm2", OTHER)]);
    forgetPaging(directory, { guest: "vm1", id: ONE as PagingFacts["asked"]["id"] });
    expect(leftPagings(directory)).toEqual([factsOf("vm2", OTHER)]);
    expect(readdirSync(join(directory, "paging"))).toEqual(["vm2.json"]);
  });
  it("is not forgotten by a restore that a later one of that guest has replaced", () => {
    notePaging(directory, factsOf("vm1", ONE));
    notePaging(directory, factsOf("vm1", OTHER));
    forgetPaging(directory, { guest: "vm1", id: ONE as PagingFacts["asked"]["id"] });
    expect(leftPagings(directory)).toEqual([factsOf("vm1", OTHER)]);
  });
  it("is passed over when it cannot be read", () => {
    expect(leftPagings(directory)).toEqual([]);
    writeFileSync(join(directory, "paging", "vm1.json"), "{");
    writeFileSync(join(directory, "paging", "vm2.json.new"), "{");
    expect(leftPagings(directory)).toEqual([]);
  });
});

describe("a checkpoint's identity", () => {
  const identify = (path: string, fingerprint = 1) => {
    const fd = openSync(path, "r");
    try {
      return identityOf(fd, fingerprint);
    } finally {
      closeSync(fd);
    }
  };
  it("is that of the file, wherever it is, and of the save in it", () => {
    const path = join(directory, "checkpoint");
    writeFileSync(path, "1234");
    const noted = identify(path);
    renameSync(path, `${path}.elsewhere`);
    expect(differenceOf(noted, identify(`${path}.elsewhere`))).toBeNull();
    writeFileSync(path, "1234");
    expect(differenceOf(noted, identify(path))).toBe("it was replaced by another file");
    expect(differenceOf(noted, identify(`${path}.elsewhere`, 2))).toBe("it holds another save now");
    writeFileSync(`${path}.elsewhere`, "12345");
    expect(differenceOf(noted, identify(`${path}.elsewhere`))).toBe("it has 5 bytes now, and had 4");
  });
});
