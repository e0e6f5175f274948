import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { compareVersions, MINIMUM_VERSION, natsServerPath } from "../../../scripts/setup-nats.mjs";
import { startNats } from "./local-nats.ts";
import { NATS_VERSION_MIN } from "./nats/version.ts";

describe("a local nats-server", () => {
  let directory = "";
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "godwit-local-nats-"));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it("listens on a free port of the loopback, and again on the same one", async () => {
    const first = await startNats({ storeDir: directory });
    expect(first.url).toBe(`nats://127.0.0.1:${first.port}`);
    await first.kill();
    const second = await startNats({ storeDir: directory, port: first.port });
    expect(second.port).toBe(first.port);
    await second.stop();
    expect(() => process.kill(second.pid, 0)).toThrow("ESRCH");
  });

  it("one that does not start says why", async () => {
    const first = await startNats({ storeDir: join(directory, "a") });
    try {
      await expect(startNats({ storeDir: join(directory, "b"), port: first.port })).rejects.toThrow(
        "address already in use",
      );
      await expect(startNats({ storeDir: join(directory, "c"), config: "nonsense {" })).rejects.toThrow("exit code");
      await expect(startNats({ storeDir: join(directory, "d"), server: "/nowhere" })).rejects.toThrow("ENOENT");
    } finally {
      await first.stop();
    }
  });
});

describe("the search for a nats-server", () => {
  let directory = "";
  const saved = { ...process.env };
  const fake = (version: string) => {
    const path = join(directory, "nats-server");
    writeFileSync(path, `#!/bin/sh\necho nats-server: v${version}\n`);
    chmodSync(path, 0o755);
    return path;
  };
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "godwit-setup-nats-"));
    delete process.env["GODWIT_NATS"];
    delete process.env["GODWIT_NATS_SERVER"];
  });
  afterEach(() => {
    process.env = { ...saved };
    rmSync(directory, { recursive: true, force: true });
  });

  it("takes the one that is named, in either variable, but URLs are not for it", async () => {
    const path = fake("2.10.23");
    process.env["GODWIT_NATS_SERVER"] = path;
    expect(await natsServerPath()).toBe(path);
    delete process.env["GODWIT_NATS_SERVER"];
    process.env["GODWIT_NATS"] = path;
    expect(await natsServerPath()).toBe(path);
    process.env["GODWIT_NATS"] = "nats://127.0.0.1:4222";
    process.env["PATH"] = `${directory}:${process.env["PATH"]}`;
    expect(await natsServerPath()).toBe(path);
  });

  it("refuses a named one that is too old, with its version and what to do", async () => {
    process.env["GODWIT_NATS_SERVER"] = fake("2.10.22");
    await expect(natsServerPath()).rejects.toThrow(/2\.10\.22 is older than 2\.10\.23[\s\S]*GODWIT_NATS_SERVER/);
  });

  it("compares versions by number, and with the same minimum as the fabric", () => {
    expect(compareVersions("2.9.10", "2.10.0")).toBeLessThan(0);
    expect(compareVersions("2.10.23", "2.10.23")).toBe(0);
    expect(MINIMUM_VERSION).toBe(NATS_VERSION_MIN);
  });
});
