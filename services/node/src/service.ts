/** A node: the actors of one host, and the guests on it. */
import type { DirectSettings, Settings } from "@godwit/actor";
import type { Fabric } from "@godwit/fabric";
import { type GuestSpec, openRegistry } from "@godwit/guest";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { Child, ChildSpec, LogTarget } from "./actor-child.ts";
import { serveInventory } from "./inventory.ts";
import { supervise } from "./supervision.ts";

/** Workers of a pool unless told otherwise: channels spread over them, and two cores are busy with two. */
export const DEFAULT_WORKERS = 4;

export interface NodeOptions {
  readonly workers: number;
  /** Guests to register, besides those the registry has already. */
  readonly guests: ReadonlyArray<GuestSpec>;
  readonly log: LogTarget;
  /** Told of each process that is started, for those who watch or kill them. */
  readonly started: (child: Child) => void;
  /** Where a process finds NATS, when each has a way of its own to it; otherwise as the node does. */
  readonly natsOf?: (child: ChildSpec) => string;
  /** Where a process takes direct connections, when each has a place of its own; otherwise as the node says. */
  readonly directOf?: (child: ChildSpec) => DirectSettings;
}

/** Runs until its scope ends; then its actors are stopped, and guests are left as they are. */
export const runNode = Effect.fnUntraced(function* (
  settings: Settings,
  options: NodeOptions,
): Effect.fn.Return<never, unknown, Fabric | Scope.Scope> {
  const registry = openRegistry(settings.runtimeDirectory);
  for (const spec of options.guests) registry.put(spec);
  const children: ReadonlyArray<ChildSpec> = [
    { role: "ram-sender", id: "0" },
    { role: "loader", id: "0" },
    { role: "vfio-agent", id: "0" },
    ...Array.from(
      { length: options.workers },
      (_, worker): ChildSpec => ({ role: "multifd-worker", id: String(worker) }),
    ),
  ];
  const workers = new Set<string>();
  for (const child of children) {
    const nats = options.natsOf?.(child) ?? settings.nats;
    const direct = options.directOf?.(child) ?? settings.direct ?? {};
    const { log, started } = options;
    const pool = child.role === "multifd-worker" ? { pool: workers } : {};
    yield* Effect.forkScoped(supervise(child, { ...settings, nats, direct }, { log, started, ...pool }));
  }
  yield* serveInventory(settings, registry, () => options.workers);
  return yield* Effect.never;
});
