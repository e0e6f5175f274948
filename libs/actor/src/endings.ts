import type { MigrationInfo } from "@godwit/protocol";

/** Endings that a side keeps to show, newest last; 64 are a day of draining a host. */
const ENDINGS_MAX = 64;

/** How migrations ended, in the coordinator's words, so that both sides show the same (R10). */
export interface Endings {
  readonly add: (info: MigrationInfo) => void;
  readonly list: () => ReadonlyArray<MigrationInfo>;
}

export const makeEndings = (): Endings => {
  const endings = new Map<string, MigrationInfo>();
  return {
    add: (info) => {
      endings.delete(info.migration);
      endings.set(info.migration, info);
      for (const oldest of endings.keys()) {
        if (endings.size <= ENDINGS_MAX) break;
        endings.delete(oldest);
      }
    },
    list: () => [...endings.values()],
  };
};
