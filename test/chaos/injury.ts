/** Does to an actor what a fault says: at once, and undone after its time. */
import { setTimeout as after } from "node:timers/promises";
import { isAlive } from "../integration/guest-process.ts";
import type { ActorName } from "../integration/world.ts";
import type { Arena } from "./arena.ts";
import type { Fault } from "./fault.ts";
import type { ProxyState } from "./proxy.ts";

export interface Injury {
  /** What was done, for the log of the run. */
  readonly what: string;
  /** Resolves when it is over; whoever was killed may still be coming up. */
  readonly over: Promise<void>;
}

/** Stops the process, and lets it go on if it is still there: a sleeper may be killed meanwhile by a second fault. */
const pause = async (pid: number, durationMs: number): Promise<void> => {
  process.kill(pid, "SIGSTOP");
  await after(durationMs);
  if (isAlive(pid)) process.kill(pid, "SIGCONT");
};

const crashServer = async ({ server }: Arena, awayMs: number): Promise<void> => {
  server.crash();
  await after(awayMs);
  await server.restart();
};

/** Begins within this turn. `actor` is null for the server. Throws when there is no such process any more. */
export const injure = (arena: Arena, actor: ActorName | null, { kind, durationMs }: Fault): Injury => {
  if (actor === null) {
    const pid = arena.server.pid();
    return kind === "kill"
      ? { what: `NATS (pid ${pid}) killed for ${durationMs} ms`, over: crashServer(arena, durationMs) }
      : { what: `NATS (pid ${pid}) paused for ${durationMs} ms`, over: pause(pid, durationMs) };
  }
  const pid = arena.world.pidOf(actor);
  const name = `${actor.join(" ")} (pid ${pid})`;
  switch (kind) {
    case "kill":
      process.kill(pid, "SIGKILL");
      return { what: `${name} killed`, over: Promise.resolve() };
    case "pause":
      return { what: `${name} paused for ${durationMs} ms`, over: pause(pid, durationMs) };
    case "cut":
    case "blackhole": {
      const ways = arena.waysOf(actor);
      const enter = (state: ProxyState): void => {
        for (const way of ways) way.enter(state);
      };
      enter(kind);
      return { what: `${name}: ${kind} for ${durationMs} ms`, over: after(durationMs).then(() => enter("open")) };
    }
  }
};
