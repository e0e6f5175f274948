/** The ownership record on the simulated register, in the words of the decisions. */
import type { SimNetwork } from "@godwit/fabric/simulation";
import { OWNERSHIP_BUCKET, type OwnershipEntry, type OwnershipRecord } from "@godwit/protocol";

export const readOwnership = (
  network: SimNetwork,
  actor: string,
  guest: string,
  afterMs: number,
  then: (entry: OwnershipEntry | null | "Unknown") => void,
): void => {
  network.timer(actor, afterMs, () =>
    network.register(OWNERSHIP_BUCKET).get(actor, guest, (read) => {
      if (read._tag === "Failed") return then("Unknown");
      then(read.found === null ? null : { record: read.found.value as OwnershipRecord, revision: read.found.revision });
    }),
  );
};

export const writeOwnership = (
  network: SimNetwork,
  actor: string,
  guest: string,
  write: { readonly record: OwnershipRecord; readonly revision: number; readonly afterMs: number },
  then: (outcome: "Unknown" | "Lost" | { readonly revision: number }) => void,
): void => {
  network.timer(actor, write.afterMs, () =>
    network
      .register(OWNERSHIP_BUCKET)
      .compareAndSet(actor, guest, write.record, write.revision, (outcome) =>
        then(outcome._tag === "Won" ? { revision: outcome.revision } : outcome._tag),
      ),
  );
};
