// The configurations that deploy/kubernetes gives to NATS, taken by real servers, on its real ports at addresses of our own loopback.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { natsServerPath } from "../../scripts/setup-nats.mjs";
import { start } from "../cli/godwit-process.ts";
import { containersOf, KUBERNETES, manifestsIn } from "./manifest.ts";

const read = (path: string): string => readFileSync(join(KUBERNETES, path), "utf8");
const [statefulSet] = manifestsIn(read("base/nats/stateful-set.yaml"));
const [job] = manifestsIn(read("setup-nats/job.yaml"));

let directory: string;
let server: string;
/** Where the pod of that number listens: a network of 127.0.0.0/8 that no other run of this test has. */
let addressOf: (pod: number) => string;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "godwit-nats-configuration-"));
  server = await natsServerPath({ log: () => {} });
  const network = `127.${1 + (process.pid % 250)}.${1 + Math.floor(Math.random() * 250)}`;
  addressOf = (pod) => `${network}.${pod + 1}`;
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** The text with this machine's places for those of a pod. */
const placed = (text: string, pod: number): string =>
  text
    .replaceAll(/nats-(\d)\.nats-servers\.godwit\.svc/g, (_, number: string) => addressOf(Number(number)))
    .replaceAll("0.0.0.0", addressOf(pod))
    .replaceAll("/run/nats", join(directory, `nats-${pod}`))
    .replaceAll('"/data"', JSON.stringify(join(directory, `nats-${pod}`)));

const write = (text: string, pod: number): string => {
  mkdirSync(join(directory, `nats-${pod}`), { recursive: true });
  const path = join(directory, `nats-${pod}.conf`);
  writeFileSync(path, placed(text, pod));
  return path;
};

/** Starts a server as its container does, and waits until it is ready. */
const startPod = async (text: string, pod: number) => {
  const child = spawn(server, ["--config", write(text, pod)], {
    env: { POD_NAME: `nats-${pod}` },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = once(child, "exit");
  const lines = createInterface({ input: child.stderr });
  const log: Array<string> = [];
  await new Promise<void>((resolve, reject) => {
    lines.on("line", (line) => {
      log.push(line);
      if (line.endsWith("Server is ready")) resolve();
    });
    void ended.then(() => reject(new Error(`nats-${pod} ended:\n${log.join("\n")}`)));
  });
  return { child, ended };
};

describe("the three servers of base", () => {
  it("take the Job's buckets with three copies, write before they acknowledge, and leave by the lame duck", async () => {
    const pods = await Promise.all([0, 1, 2].map((pod) => startPod(read("base/nats/nats.conf"), pod)));
    try {
      const [container] = containersOf(job!);
      const environment = Object.fromEntries(
        (container?.env ?? []).map(({ name, value = "" }) => [name, placed(value, 0)]),
      );
      const done = await start([...(container?.args ?? []), "--json"], { environment }).finished;
      expect(done).toMatchObject({ code: 0 });
      const answer = JSON.parse(done.stdout) as {
        readonly buckets: ReadonlyArray<{
          done: string;
          mismatches: unknown;
          copies: ReadonlyArray<{ server: string }>;
        }>;
        readonly "sync-interval": unknown;
      };
      expect(answer.buckets.map((bucket) => [bucket.done, bucket.mismatches])).toEqual([
        ["made", []],
        ["made", []],
      ]);
      expect(answer.buckets[0]?.copies.map((copy) => copy.server).sort()).toEqual(["nats-0", "nats-1", "nats-2"]);
      expect(answer["sync-interval"]).toMatchObject({ state: "works" });

      const command = containersOf(statefulSet!)[0]?.lifecycle?.preStop?.exec?.command ?? [];
      expect(command[0]).toBe("nats-server");
      execFileSync(
        server,
        command.slice(1).map((word) => placed(word, 0)),
      );
      await pods[0]!.ended;
      expect(pods[0]!.child).toMatchObject({ exitCode: 0, signalCode: null });
    } finally {
      for (const { child } of pods) child.kill("SIGKILL");
      await Promise.all(pods.map(({ ended }) => ended));
    }
  });
});

/** Without what only a cluster has: the accounts and the certificates. */
const withoutSecrets = (text: string): string =>
  text.replace(/^include .*$/m, "").replaceAll(/^ *tls \{[^}]*\}$/gm, "");

describe("the overlays", () => {
  for (const overlay of ["dev", "production"]) {
    it(`${overlay}: nats-server takes the file`, () => {
      const path = write(withoutSecrets(read(`overlays/${overlay}/nats.conf`)), 0);
      execFileSync(server, ["-t", "--config", path], { env: { POD_NAME: "nats-0" }, stdio: "pipe" });
    });
  }
  it("a word that nats-server does not know is found", () => {
    const path = write(`${read("overlays/dev/nats.conf")}\nsync_intervall: always\n`, 0);
    expect(() =>
      execFileSync(server, ["-t", "--config", path], { env: { POD_NAME: "nats-0" }, stdio: "pipe" }),
    ).toThrow("sync_intervall");
  });
  it("production has base's values, but for the room it takes", () => {
    const settings = (text: string) =>
      withoutSecrets(text)
        .split("\n")
        .map((line) => line.trim())
        .filter((line) => line !== "" && !line.startsWith("#") && !line.startsWith("max_file_store"));
    expect(settings(read("overlays/production/nats.conf"))).toEqual(settings(read("base/nats/nats.conf")));
  });
});
