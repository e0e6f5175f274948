import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { natsServerPath } from "../../../scripts/setup-nats.mjs";
import { FabricError } from "./errors.ts";

/** How long a server may take from spawn to "Server is ready", ms: recovery of its streams included, on a busy machine. */
const READY_MS = 30_000;
/** How long an orderly stop may take before the server is killed, ms. */
const STOP_MS = 5_000;
/** Lines of the server's log that an error shows. */
const LOG_LINES_KEPT = 20;

export interface LocalNatsOptions {
  /** Address that it listens on; default 127.0.0.1. */
  readonly host?: string;
  /** 0 or absent: any free port. */
  readonly port?: number;
  /** Where the streams live; a server started again on the same directory has them again. */
  readonly storeDir: string;
  /** Default true. */
  readonly jetstream?: boolean;
  /** Name of its JetStream's domain; default: it has none. */
  readonly jsDomain?: string;
  /** Further lines of nats-server configuration (users, limits). */
  readonly config?: string;
  /** Path of the nats-server binary; default: what `natsServerPath` finds or fetches. */
  readonly server?: string;
  /** Lines about finding and fetching the server, and the server's own log. */
  readonly log?: (line: string) => void;
}

export interface LocalNats {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Orderly; resolves when the process is gone. */
  readonly stop: () => Promise<void>;
  /** As a crash does it; resolves when the process is gone. */
  readonly kill: () => Promise<void>;
}

/**
 * Starts a nats-server on loopback and resolves once it takes connections. JetStream writes are on disk before they are
 * acknowledged (`sync_interval: always`): the ownership record must survive a power loss.
 *
 * Rejects with an Error that holds the end of the server's log. The process ends with ours, save when ours is SIGKILLed.
 */
export async function startNats(options: LocalNatsOptions): Promise<LocalNats> {
  const log = options.log ?? (() => {});
  const server = options.server ?? (await natsServerPath({ log }));
  mkdirSync(options.storeDir, { recursive: true });
  const file = join(options.storeDir, "nats-server.conf");
  writeFileSync(file, configuration(options));

  const child = spawn(server, ["-c", file], { stdio: ["ignore", "ignore", "pipe"] });
  const gone = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => resolve());
  });
  const dieWithUs = () => child.kill("SIGKILL");
  process.once("exit", dieWithUs);
  void gone.then(() => process.removeListener("exit", dieWithUs));

  const end = async (signal: NodeJS.Signals) => {
    child.kill(signal);
    const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    await gone;
    clearTimeout(late);
  };
  try {
    const port = await readyPort(child, log);
    const { pid } = child;
    if (pid === undefined) throw new Error("nats-server has no process id");
    return {
      url: `nats://${hostOf(options)}:${port}`,
      port,
      pid,
      stop: () => end("SIGTERM"),
      kill: () => end("SIGKILL"),
    };
  } catch (error) {
    await end("SIGKILL");
    throw error;
  }
}

/** `startNats` for the life of a scope. */
export const localNats = (options: LocalNatsOptions): Effect.Effect<LocalNats, FabricError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: () => startNats(options),
      catch: (cause) =>
        new FabricError({
          code: "nats-unreachable",
          operation: "start nats-server",
          reason: cause instanceof Error ? cause.message : String(cause),
          retryable: false,
        }),
    }),
    (nats) => Effect.promise(nats.stop),
  );

const hostOf = ({ host }: LocalNatsOptions): string => host ?? "127.0.0.1";

function configuration(options: LocalNatsOptions): string {
  // Port -1 makes the server choose a free one by itself: asking the kernel for one beforehand would race with others.
  const lines = [`host: ${hostOf(options)}`, `port: ${options.port || -1}`];
  if (options.jetstream ?? true) {
    const domain = options.jsDomain === undefined ? "" : `, domain: ${options.jsDomain}`;
    lines.push(`jetstream { store_dir: ${JSON.stringify(options.storeDir)}, sync_interval: always${domain} }`);
  }
  return [...lines, options.config ?? "", ""].join("\n");
}

/** The port from the server's log, once it says that it is ready; fails when the process ends before. */
function readyPort(child: ChildProcess, log: (line: string) => void): Promise<number> {
  const { stderr } = child;
  if (stderr === null) return Promise.reject(new Error("nats-server's log is not connected"));
  const last: Array<string> = [];
  return new Promise((resolve, reject) => {
    let port = 0;
    const late = setTimeout(() => fail(`nats-server was not ready within ${READY_MS} ms`), READY_MS);
    const fail = (what: string) => {
      clearTimeout(late);
      reject(new Error([what, ...last].join("\n")));
    };
    child.once("error", (error) => fail(error.message));
    child.once("close", (code, signal) => fail(`nats-server ended (${signal ?? `exit code ${code}`})`));
    createInterface({ input: stderr }).on("line", (line) => {
      log(line);
      last.push(line);
      if (last.length > LOG_LINES_KEPT) last.shift();
      port ||= Number(/Listening for client connections on \S*:(\d+)$/.exec(line)?.[1] ?? 0);
      if (port !== 0 && line.endsWith("Server is ready")) {
        clearTimeout(late);
        resolve(port);
      }
    });
  });
}
