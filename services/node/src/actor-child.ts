/** One actor process under this node's supervision. */
import { type ChildProcess, spawn } from "node:child_process";
import { createRequire } from "node:module";
import { randomId, type Settings } from "@godwit/actor";
import type { Member } from "@godwit/fabric";
import * as Effect from "effect/Effect";

/** Which process: its role is its service's name. `id` distinguishes several of one role. */
export interface ChildSpec {
  readonly role: "coordinator" | "ram-sender" | "loader" | "multifd-worker";
  readonly id: string;
}

const ENTRIES = {
  coordinator: "@godwit/coordinator/main",
  "ram-sender": "@godwit/ram-sender/main",
  loader: "@godwit/loader/main",
  "multifd-worker": "@godwit/multifd-worker/main",
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
  const child = spawn(process.execPath, [require.resolve(ENTRIES[spec.role])], {
    stdio: ["ignore", "ignore", log],
    env: {
      ...process.env,
      GODWIT_NATS: settings.nats,
      GODWIT_NODE: settings.node,
      GODWIT_RUNTIME_DIR: settings.runtimeDirectory,
      GODWIT_GUEST_DIR: settings.guestDirectory,
      GODWIT_INCARNATION: incarnation,
      GODWIT_SUPERVISOR: String(process.pid),
      GODWIT_WORKER: spec.id,
      ...(settings.creds === undefined ? {} : { GODWIT_CREDS: settings.creds }),
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
