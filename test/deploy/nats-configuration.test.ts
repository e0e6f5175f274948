// The configurations that deploy/kubernetes gives to NATS, taken by real servers, on its real ports at addresses of our own loopback.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { natsServerPath } from "../../scripts/setup-nats.mjs";
import { CATALOGUE } from "../../services/cli/src/commands/catalogue.ts";
import { run, start } from "../cli/godwit-process.ts";
import { containersOf, KUBERNETES, type Manifest, manifestsIn } from "./manifest.ts";

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

/** Starts the three pods with a configuration, runs the Job against them, and hands its answer to `look`. */
const withThreeServers = async (
  text: string,
  environment: Readonly<Record<string, string>>,
  look: (pods: ReadonlyArray<Awaited<ReturnType<typeof startPod>>>) => Promise<void>,
): Promise<void> => {
  const pods = await Promise.all([0, 1, 2].map((pod) => startPod(text, pod)));
  try {
    const done = await start([...(containersOf(job!)[0]?.args ?? []), "--json"], { environment }).finished;
    expect(done, done.stdout).toMatchObject({ code: 0 });
    const answer = JSON.parse(done.stdout) as {
      readonly buckets: ReadonlyArray<{ done: string; mismatches: unknown; copies: ReadonlyArray<{ server: string }> }>;
      readonly "sync-interval": unknown;
    };
    expect(answer.buckets.map((bucket) => [bucket.done, bucket.mismatches])).toEqual([
      ["made", []],
      ["made", []],
    ]);
    expect(answer.buckets[0]?.copies.map((copy) => copy.server).sort()).toEqual(["nats-0", "nats-1", "nats-2"]);
    expect(answer["sync-interval"]).toMatchObject({ state: "works" });
    await look(pods);
  } finally {
    for (const { child } of pods) child.kill("SIGKILL");
    await Promise.all(pods.map(({ ended }) => ended));
  }
};

/** Variables of the Job as a patch leaves them, with this machine's places. */
const jobVariables = (...manifests: ReadonlyArray<Manifest>): Readonly<Record<string, string>> =>
  Object.fromEntries(
    manifests
      .flatMap((manifest) => containersOf(manifest)[0]?.env ?? [])
      .map(({ name, value = "" }) => [
        name,
        placed(value, 0).replace("/etc/godwit/credentials", join(directory, "credentials")),
      ]),
  );

describe("three servers", () => {
  it("of base take the Job's buckets with three copies, write before they acknowledge, and leave by the lame duck", () =>
    withThreeServers(read("base/nats/nats.conf"), jobVariables(job!), async ([first]) => {
      const command = containersOf(statefulSet!)[0]?.lifecycle?.preStop?.exec?.command ?? [];
      expect(command[0]).toBe("nats-server");
      execFileSync(
        server,
        command.slice(1).map((word) => placed(word, 0)),
      );
      await first?.ended;
      expect(first?.child).toMatchObject({ exitCode: 0, signalCode: null });
    }));

  const has = Object.hasOwn(CATALOGUE, "credentials");
  const because = has ? "" : " (skipped: this tree has no `godwit credentials`)";
  it.skipIf(!has)(
    `of production do so for the admin alone, over TLS, with what godwit credentials makes${because}`,
    async () => {
      const [init, folder] = [join(directory, "credentials"), join(directory, "auth")];
      // Servers look for the addresses of each other; nats.js knows a server that it is given by address as localhost.
      const hosts = ["localhost", ...[0, 1, 2].map(addressOf)].flatMap((host) => ["--host", host]);
      const made = await run(["credentials", "init", init, ...hosts, "--server-dir", folder]);
      expect(made, made.stderr).toMatchObject({ code: 0 });
      cpSync(join(init, "server"), folder, { recursive: true });
      cpSync(join(init, "ca.pem"), join(folder, "ca.pem"));
      const text = read("overlays/production/nats.conf").replaceAll("/etc/nats/auth", folder);
      const [admin] = manifestsIn(read("overlays/production/setup-nats/admin.yaml"));
      const environment = jobVariables(job!, admin!);
      await withThreeServers(text, environment, async () => {
        const { GODWIT_CREDS: _, ...stranger } = environment;
        const refused = await run(["setup-nats"], { environment: stranger });
        expect(refused.stderr).toContain("nats-denied");
        expect(refused.code).toBe(1);
      });
    },
  );
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
