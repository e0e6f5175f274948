/** A migration under watch: everything that was ever said of it, and waiting for what shall be said. */
import type { GodwitError, MigrationInfo } from "@godwit/protocol";

export interface Journey {
  readonly id: MigrationInfo["migration"];
  /** Every state that was seen so far, in order; equal neighbours included. */
  readonly seen: ReadonlyArray<MigrationInfo>;
  /** The first state seen from now on, or the present one, for which it holds; rejects when the migration ends without it. */
  readonly until: (holds: (info: MigrationInfo) => boolean) => Promise<MigrationInfo>;
  /** The last state. */
  readonly end: Promise<MigrationInfo>;
}

interface Waiter {
  readonly holds: (info: MigrationInfo) => boolean;
  readonly resolve: (info: MigrationInfo) => void;
  readonly reject: (error: Error) => void;
}

/** `follow` calls back with each state and resolves with the last. */
export const makeJourney = (
  begun: MigrationInfo,
  follow: (seen: (info: MigrationInfo) => void) => Promise<MigrationInfo>,
): Journey => {
  const seen: MigrationInfo[] = [begun];
  let waiters: Waiter[] = [];
  const note = (info: MigrationInfo): void => {
    seen.push(info);
    for (const waiter of waiters.filter(({ holds }) => holds(info))) {
      waiters = waiters.filter((other) => other !== waiter);
      waiter.resolve(info);
    }
  };
  const giveUp = (why: string): void => {
    for (const waiter of waiters) waiter.reject(new Error(`${why}, and this was waited for: ${waiter.holds}`));
    waiters = [];
  };
  const end = follow(note);
  void end.then(
    (last) => giveUp(`migration ${begun.migration} ended as ${last.status}: ${last["error-desc"] ?? "no error"}`),
    (error: GodwitError) => giveUp(error.message),
  );
  return {
    id: begun.migration,
    seen,
    end,
    until: (holds) =>
      new Promise((resolve, reject) => {
        const present = seen.at(-1);
        if (present !== undefined && holds(present)) resolve(present);
        else waiters.push({ holds, resolve, reject });
      }),
  };
};

/** In the first round, with pages applied and pages left: where a fault hits a migration that is really under way. */
export const isMidway = (info: MigrationInfo): boolean =>
  info.status === "active" && info.ram !== undefined && info.ram.normal > 0 && info.ram.remaining > 0;
