/** One actor process under this node's supervision. */
import { type ChildProcess, spawn } from "node:child_process";
import { lstatSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { randomId, type Settings } from "@godwit/actor";
import type { Member } from "@godwit/fabric";
import { programFile } from "@godwit/host";
import * as Effect from "effect/Effect";

/** Which process: its role is its service's name. `id` distinguishes several of one role. */
export interface ChildSpec {
  readonly role: "coordinator" | "ram-sender" | "loader" | "multifd-worker" | "vfio-agent";
  readonly id: string;
}

const ENTRIES = {
  coordinator: "@godwit/coordinator/main",
  "ram-sender": "@godwit/ram-sender/main",
  loader: "@godwit/loader/main",
  "multifd-worker": "@godwit/multifd-worker/main",
  "vfio-agent": "@godwit/vfio-agent/main",
} as const;
const require = createRequire(import.meta.url);

/** How long a child may take to end orderly after SIGTERM, ms; then it is killed. */
const STOP_MS = 3000;

export interface Child {
  readonly spec: ChildSpec;
  /** As it announces itself. */
  readonly member: Member;
  readonly pid: number;
  readonly exited: Effect.Effect<string>;
  readonly stop: Effect.Effect<void>;
}

/** Where a child's log goes: our own stderr, or an open file. */
export type LogTarget = "inherit" | number;

/** Starts the process; its incarnation is drawn here, so that its death can be declared by name. */
export const startChild = (spec: ChildSpec, settings: Settings, log: LogTarget): Child => {
  const incarnation = randomId();
  const compiled = compileCache(settings.runtimeDirectory);
  const child = spawn(process.execPath, [programFile(pathToFileURL(require.resolve(ENTRIES[spec.role])))], {
    stdio: ["ignore", "ignore", log],
    env: {
      ...process.env,
      NODE_COMPILE_CACHE: compiled,
      GODWIT_NATS: settings.nats,
      GODWIT_NODE: settings.node,
      GODWIT_RUNTIME_DIR: settings.runtimeDirectory,
      GODWIT_GUEST_DIR: settings.guestDirectory,
      GODWIT_CHECKPOINT_DIR: settings.checkpointDirectory,
      // Left out when it is undefined, whatever our own environment says: `godwit up` has servers of its own.
      GODWIT_JS_DOMAIN: settings.jsDomain,
      GODWIT_INCARNATION: incarnation,
      GODWIT_SUPERVISOR: String(process.pid),
      GODWIT_WORKER: spec.id,
      ...(settings.requireEncryption === true ? { GODWIT_REQUIRE_ENCRYPTION: "1" } : {}),
      ...(settings.creds === undefined ? {} : { GODWIT_CREDS: settings.creds }),
      ...certificates(settings),
      ...directions(settings),
    },
  });
  const gone = new Promise<string>((resolve) => {
    child.once("exit", (code, signal) => resolve(signal ?? `code ${code}`));
    child.once("error", (error) => resolve(error.message));
  });
  return {
    spec,
    // Coordinators are told apart by their incarnations: several may have one label.
    member: {
      role: spec.role,
      node: settings.node,
      id: spec.role === "coordinator" ? incarnation : spec.id,
      incarnation,
    },
    pid: child.pid ?? 0,
    exited: Effect.promise(() => gone),
    stop: stopChild(child, gone),
  };
};

const directions = ({ direct = {} }: Settings): NodeJS.ProcessEnv => ({
  ...(direct.listen === undefined ? {} : { GODWIT_DIRECT_LISTEN: direct.listen }),
  ...(direct.address === undefined ? {} : { GODWIT_DIRECT_ADDRESS: direct.address }),
});
const certificates = ({ tls = {} }: Settings): NodeJS.ProcessEnv => ({
  ...(tls.caFile === undefined ? {} : { GODWIT_TLS_CA: tls.caFile }),
  ...(tls.certFile === undefined ? {} : { GODWIT_TLS_CERT: tls.certFile }),
  ...(tls.keyFile === undefined ? {} : { GODWIT_TLS_KEY: tls.keyFile }),
});

/**
 * Where actors keep what they have compiled, which is half of the 0.4 s of CPU that a start costs; a worker's restart has none to
 * spare. Whoever can write there runs code in every actor. So it is the folder that this process was given itself, which in a clone
 * lies beside the code, or else one of the node's own; none where that cannot be had, or could have been made by others.
 */
const compileCache = (runtimeDirectory: string): string | undefined => {
  const given = process.env["NODE_COMPILE_CACHE"];
  if (given !== undefined && given !== "") return given;
  const own = join(runtimeDirectory, "compiled");
  try {
    mkdirSync(own, { recursive: true, mode: 0o700 });
    const found = lstatSync(own);
    const isOurs = found.isDirectory() && found.uid === process.getuid?.() && (found.mode & 0o022) === 0;
    return isOurs ? own : undefined;
  } catch {
    // Nothing depends on it but the time that a start takes.
    return undefined;
  }
};

const stopChild = (child: ChildProcess, gone: Promise<string>): Effect.Effect<void> =>
  Effect.gen(function* () {
    child.kill("SIGTERM");
    const orderly = yield* Effect.timeoutOption(
      Effect.promise(() => gone),
      STOP_MS,
    );
    if (orderly._tag === "Some") return;
    child.kill("SIGKILL");
    yield* Effect.promise(() => gone);
  });
