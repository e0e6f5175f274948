import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { GuestSpec } from "./guest.ts";
import { openRegistry, type Registry } from "./registry.ts";

let runtime: string;
let guests: string;
let registry: Registry;
beforeEach(() => {
  runtime = mkdtempSync("/tmp/godwit-registry-");
  guests = join(runtime, "guests");
  registry = openRegistry(runtime);
});
afterEach(() => rmSync(runtime, { recursive: true, force: true }));

const builtin = (name: string, pid = 42): GuestSpec => ({ driver: "builtin", name, socket: `/tmp/${name}.sock`, pid });
const names = fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/);
const specs: fc.Arbitrary<GuestSpec> = fc.oneof(
  fc.record({ driver: fc.constant("builtin" as const), name: names, socket: fc.string(), pid: fc.nat() }),
  fc.record(
    {
      driver: fc.constant("qemu" as const),
      name: names,
      qmp: fc.string(),
      launch: fc.array(fc.string()),
      moving: fc.constantFrom("arriving" as const, "leaving" as const),
    },
    { requiredKeys: ["driver", "name", "qmp"] },
  ),
);

describe("the guests of a node", () => {
  it("are found as they were put, also by another process that opens the directory later", () => {
    fc.assert(
      fc.property(fc.uniqueArray(specs, { selector: ({ name }) => name, maxLength: 6 }), (all) => {
        for (const spec of registry.list()) registry.remove(spec.name);
        for (const spec of all) registry.put(spec);
        const later = openRegistry(runtime);
        const byName = (a: GuestSpec, b: GuestSpec) => (a.name < b.name ? -1 : 1);
        expect([...later.list()].sort(byName)).toEqual([...all].sort(byName));
        for (const spec of all) expect(later.find(spec.name)).toEqual(spec);
      }),
      { numRuns: 40 },
    );
  });

  it("are replaced whole, and gone once removed, however often", () => {
    registry.put(builtin("vm1"));
    registry.put({ driver: "qemu", name: "vm1", qmp: "/run/vm1.qmp" });
    expect(registry.find("vm1")).toEqual({ driver: "qemu", name: "vm1", qmp: "/run/vm1.qmp" });
    registry.remove("vm1");
    registry.remove("vm1");
    expect(registry.find("vm1")).toBeNull();
    expect(registry.list()).toEqual([]);
    expect(readdirSync(guests)).toEqual([]);
  });

  it("carry the note of a migration until it is settled; a guest that is not there carries none", () => {
    registry.put(builtin("vm1"));
    registry.mark("vm1", "leaving");
    expect(registry.find("vm1")).toEqual({ ...builtin("vm1"), moving: "leaving" });
    registry.mark("vm1", "arriving");
    expect(registry.find("vm1")).toMatchObject({ moving: "arriving" });
    registry.settle("vm1");
    registry.settle("vm1");
    expect(registry.find("vm1")).toEqual(builtin("vm1"));
    registry.mark("nobody", "leaving");
    registry.settle("nobody");
    expect(registry.list()).toHaveLength(1);
  });

  it("are nobody else's to read", () => {
    registry.put(builtin("vm1"));
    expect(statSync(guests).mode & 0o777).toBe(0o700);
    expect(statSync(join(guests, "vm1.json")).mode & 0o777).toBe(0o600);
  });

  it.each(["", ".", "..", "../vm1", "a/b", "a b", "a.b", "x".repeat(65), "vm1\0"])("are never called %j", (name) => {
    expect(() => registry.find(name)).toThrow(/guest name/);
    expect(() => registry.put(builtin(name))).toThrow(/guest name/);
    expect(() => registry.remove(name)).toThrow(/guest name/);
    expect(() => registry.mark(name, "arriving")).toThrow(/guest name/);
    expect(readdirSync(runtime)).toEqual(["guests"]);
  });

  it("are listed beside files that are not ours, and beside what a killed writer left", () => {
    registry.put(builtin("vm1"));
    for (const file of ["README", ".json", "a b.json", "vm2.json.4711", "vm1.json.bak"])
      writeFileSync(join(guests, file), "not ours");
    mkdirSync(join(guests, "folder"));
    expect(registry.list()).toEqual([builtin("vm1")]);
  });

  it.each([
    ["is empty", ""],
    ["was cut short", '{"driver":"builtin","name":"vm1"'],
    ["is of an unknown driver", '{"driver":"xen","name":"vm1"}'],
    ["lacks its socket", '{"driver":"builtin","name":"vm1","pid":1}'],
    ["speaks of another guest", JSON.stringify(builtin("vm2"))],
    ["is no object", "7"],
  ])("say which file is broken when one %s", (_, text) => {
    writeFileSync(join(guests, "vm1.json"), text);
    expect(() => registry.find("vm1")).toThrow(join(guests, "vm1.json"));
    expect(() => registry.list()).toThrow(join(guests, "vm1.json"));
    // Whoever puts the guest anew repairs it.
    registry.put(builtin("vm1"));
    expect(registry.list()).toEqual([builtin("vm1")]);
  });

  it("are never seen half written, nor missing, while another process writes them all the time", async () => {
    registry.put(builtin("vm1"));
    const writer = `
      import { openRegistry } from ${JSON.stringify(new URL("registry.ts", import.meta.url).href)};
      const registry = openRegistry(${JSON.stringify(runtime)});
      const launch = Array.from({ length: 2000 }, (_, n) => "argument " + n);
      process.stdout.write("ready");
      for (let n = 0; n < 400; n++) registry.put({ driver: "qemu", name: "vm1", qmp: "/run/" + n, launch });`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", writer], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    const ended = once(child, "exit");
    let running = true;
    void ended.then(() => {
      running = false;
    });
    let seen = 0;
    while (running) {
      const spec = registry.find("vm1");
      if (spec === null) expect.unreachable("it was missing");
      if (spec.driver === "qemu") expect(spec.launch).toHaveLength(2000);
      seen++;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await ended)[0]).toBe(0);
    expect(seen).toBeGreaterThan(10);
    expect(readdirSync(guests)).toEqual(["vm1.json"]);
  });

  it("have a directory that is made when it is missing", () => {
    const elsewhere = join(runtime, "deep", "er");
    expect(openRegistry(elsewhere).list()).toEqual([]);
    expect(existsSync(join(elsewhere, "guests"))).toBe(true);
  });
});
