/** What an actor says about itself on its health socket. Nothing is imported here: who asks every few seconds must start quickly. */
import { join } from "node:path";

export interface HealthReport {
  readonly role: string;
  readonly node: string;
  readonly id: string;
  readonly incarnation: string;
  /** Whether it has all that its job needs. */
  readonly healthy: boolean;
  /** What it needs, and what is in the way; null: nothing. */
  readonly findings: ReadonlyArray<{ readonly what: string; readonly reason: string | null }>;
}

/** Where an actor answers; whoever acts for the node has the runtime directory. */
export const healthSocket = (runtimeDirectory: string, role: string, id: string): string =>
  join(runtimeDirectory, "health", `${role}-${id}`);
