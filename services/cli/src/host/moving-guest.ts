import type { GuestSpec } from "@godwit/guest";
import { GodwitError } from "@godwit/protocol";

/** A guest's entry belongs to the migration that has it in hand. */
export const movingGuest = (name: string, moving: NonNullable<GuestSpec["moving"]>, step: string): GodwitError =>
  new GodwitError({
    code: "migration-in-progress",
    actor: "cli",
    step,
    reason: `guest ${name} is ${moving}, and its entry is the migration's`,
  });
