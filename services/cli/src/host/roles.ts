/** The actors that can be run one by one, each in a process of its own. Each is loaded when it is run. */
import type { ActorProgram } from "@godwit/actor";
import { UsageError } from "../arguments/usage-error.ts";

const PROGRAMS = {
  coordinator: async () => (await import("@godwit/coordinator/service")).runCoordinator,
  "ram-sender": async () => (await import("@godwit/ram-sender/service")).runSender,
  loader: async () => (await import("@godwit/loader/service")).runLoader,
  "vfio-agent": async () => (await import("@godwit/vfio-agent/service")).runVfioAgent,
  "multifd-worker": async (id: string) => {
    const { runWorker } = await import("@godwit/multifd-worker/worker");
    return (settings) => runWorker(settings, id);
  },
} as const satisfies Readonly<Record<string, (id: string) => Promise<ActorProgram>>>;

/** The node brings guests, and the launcher knows nothing of NATS: the command itself puts them together. */
export type Role = keyof typeof PROGRAMS | "node" | "launcher";
export const ROLES = [...Object.keys(PROGRAMS), "node", "launcher"] as ReadonlyArray<Role>;

/** Throws a UsageError that lists the roles. */
export const readRole = (word: string | undefined): Role => {
  const role = ROLES.find((known) => known === word);
  if (role === undefined)
    throw new UsageError(`there is no actor ${JSON.stringify(word)}; there are: ${ROLES.join(", ")}`);
  return role;
};

export const loadProgram = (role: Exclude<Role, "node" | "launcher">, id: string): Promise<ActorProgram> =>
  PROGRAMS[role](id);
