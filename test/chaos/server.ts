/** The NATS server of a world, which may be killed and started again where it was, or put to sleep. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import { commandLine, isAlive } from "../integration/guest-process.ts";
import { eventually, type World } from "../integration/world.ts";

export interface Server {
  readonly pid: () => number;
  /** SIGKILL, at once. */
  readonly crash: () => void;
  /** On the same port and the same store; resolves when it takes connections. */
  readonly restart: () => Promise<void>;
  /** Ends what was started here; the first one belongs to the world. */
  readonly close: () => Promise<void>;
}

/** The process that was started with this world's configuration. */
const findServer = (configuration: string): number => {
  const pid = readdirSync("/proc").find(
    (name) => /^\d+$/.test(name) && commandLine(Number(name)).includes(configuration),
  );
  if (pid === undefined) throw new Error(`no NATS server has ${configuration}`);
  return Number(pid);
};

export const serverOf = (world: World): Server => {
  const storeDir = join(world.directory, "nats");
  let pid = findServer(join(storeDir, "nats-server.conf"));
  let restarted: LocalNats | null = null;
  return {
    pid: () => pid,
    crash: () => void process.kill(pid, "SIGKILL"),
    restart: async () => {
      await eventually("the killed server is gone", () => !isAlive(pid));
      restarted = await startNats({ storeDir, port: Number(new URL(world.cluster.url).port) });
      pid = restarted.pid;
    },
    close: async () => restarted?.stop(),
  };
};
