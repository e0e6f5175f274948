/** libvfio-user's own sample servers, as processes. docs/vfio-user.md says how to build them. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
// Below what the library offers: the samples' registers are no part of a migration.
import { type Connection, connectVfioUser } from "../../libs/vfio/src/vfio-user/connection.ts";
import { deviceOn } from "../../libs/vfio/src/vfio-user/device.ts";

/** Folder of the built samples; nothing looks for it elsewhere. */
const FOLDER = process.env["GODWIT_LIBVFIO_USER"];
type SampleName = "server" | "gpio-pci-idio-16";

/** Why the samples cannot be run here; empty when they can. */
export const whyNoSamples = (): string => {
  if (FOLDER === undefined || FOLDER === "")
    return "GODWIT_LIBVFIO_USER does not name a build of libvfio-user's samples";
  const missing = (["server", "gpio-pci-idio-16"] as const).find((name) => !existsSync(join(FOLDER, name)));
  return missing === undefined ? "" : `${join(FOLDER, missing)} does not exist`;
};

export interface Sample {
  readonly socketPath: string;
  /** Exit code, or name of the signal that ended it (SIGABRT: one of its assertions); null while it runs. */
  readonly ending: () => number | string | null;
  readonly output: () => string;
}

/** Starts a sample that listens on `socketPath`; it ends with the scope. */
export const startSample = (name: SampleName, socketPath: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(join(FOLDER ?? "", name), [socketPath], { stdio: ["ignore", "pipe", "pipe"] });
      let output = "";
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += String(chunk)));
      const sample: Sample = { socketPath, ending: () => child.exitCode ?? child.signalCode, output: () => output };
      return { child, sample };
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL")),
  ).pipe(Effect.map(({ sample }) => sample));

/** A sample's device, and the connection under it for what is not a migration's business. A sample takes a moment until it listens. */
export const openSample = (sample: Sample) =>
  Effect.gen(function* () {
    const { socketPath } = sample;
    const connection = yield* connectVfioUser("sample", socketPath, "5 seconds").pipe(
      Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 250, while: () => sample.ending() === null }),
      Effect.mapError((error) => new Error(`${error.message}; the sample says: ${sample.output()}`)),
    );
    const device = yield* deviceOn(connection, { name: "sample", provider: "vfio-user", socket: socketPath }, {});
    return { connection, device };
  });

/** How a sample ended: 0, or what its assertion said; it takes a moment after its client has left. */
export const endingOf = (sample: Sample) =>
  Effect.suspend(() =>
    sample.ending() === null ? Effect.fail("it still runs" as const) : Effect.succeed(sample.ending()),
  ).pipe(Effect.retry({ schedule: Schedule.spaced("20 millis"), times: 250 }));

export const readRegion = (connection: Connection, region: number, count: number) =>
  connection.ask({
    operation: "read region",
    request: { kind: "region-read", region, offset: 0, count },
    read: ({ data }) => data.slice(),
  });

export const writeRegion = (connection: Connection, region: number, offset: number, data: Uint8Array) =>
  connection.ask({
    operation: "write region",
    request: { kind: "region-write", region, offset, data },
    read: () => undefined,
  });

export const regionBytes = (connection: Connection, region: number) =>
  connection.ask({
    operation: "get region info",
    request: { kind: "region-info", region },
    read: ({ bytes }) => bytes,
  });
