import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bucketOf } from "@godwit/protocol";
import * as Context from "effect/Context";
import * as Effect from "effect/Effect";
import * as Layer from "effect/Layer";
import * as References from "effect/References";
import type * as Scope from "effect/Scope";
import type { FabricWorld } from "../fabric.conformance.ts";
import { Fabric, type Member } from "../fabric.ts";
import { type LocalNats, type LocalNatsOptions, startNats } from "../local-nats.ts";
import { setUpBuckets } from "../nats/bucket-setup.ts";
import type { NatsOptions } from "../nats/connection.ts";
import { NatsFabric } from "../nats/nats-fabric.ts";
import { CONFORMANCE_BUCKETS } from "./bucket.ts";

/** A test machine with more to do than cores, ms. */
const BUSY_MACHINE_MS = 1_000;

const ANNOUNCER = fileURLToPath(new URL("announcer.ts", import.meta.url));

/** Runs a test's program without its log: links break on purpose. */
export const run = <A, E>(program: Effect.Effect<A, E, Scope.Scope>): Promise<A> =>
  Effect.runPromise(Effect.scoped(program).pipe(Effect.provideService(References.MinimumLogLevel, "None")));

/** An actor's fabric on a real server, for the life of the scope. */
export const joinNats = (servers: string, name: string) => joinNatsWith({ servers, name });
export const joinNatsWith = (options: NatsOptions) =>
  Effect.map(Layer.build(NatsFabric.layer(options)), (context) => Context.get(context, Fabric));

/** A process that has announced `member`; SIGKILLed with the scope. */
export const announceInProcess = Effect.fnUntraced(function* (servers: string, member: Member) {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [ANNOUNCER, servers, JSON.stringify(member)], { stdio: ["ignore", "pipe", "inherit"] }),
    ),
    (running) => Effect.sync(() => running.kill("SIGKILL")),
  );
  yield* Effect.promise(() => once(child.stdout, "data"));
  const signal = (name: NodeJS.Signals) => Effect.sync(() => void child.kill(name));
  return { crash: signal("SIGKILL"), pause: signal("SIGSTOP"), resume: signal("SIGCONT") };
});

/** A server with a store of its own, which goes with `close`. */
export async function startTestNats(
  options: Partial<LocalNatsOptions> = {},
): Promise<{ readonly server: LocalNats; readonly storeDir: string; readonly close: () => Promise<void> }> {
  const storeDir = options.storeDir ?? mkdtempSync(join(tmpdir(), "godwit-nats-"));
  const server = await startNats({ ...options, storeDir });
  return {
    server,
    storeDir,
    close: async () => {
      await server.stop();
      rmSync(storeDir, { recursive: true, force: true });
    },
  };
}

/** Makes the buckets, as `godwit setup-nats` does. */
export const makeBuckets = (servers: string, ...names: ReadonlyArray<string>) =>
  setUpBuckets({ servers, name: "test setup" }, names.map(bucketOf));

export async function openNatsWorld(): Promise<FabricWorld> {
  const { server, close } = await startTestNats();
  await run(makeBuckets(server.url, ...CONFORMANCE_BUCKETS));
  return worldOn(server.url, close);
}

/** The world of a server that has the conformance suite's buckets, wherever it runs. */
export const worldOn = (servers: string, close: () => Promise<void>): FabricWorld => ({
  run,
  join: (actor) => joinNats(servers, actor),
  announceElsewhere: (member) => announceInProcess(servers, member),
  slackMs: BUSY_MACHINE_MS,
  close,
});
