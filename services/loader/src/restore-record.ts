/** Whether a restore that a former life of this loader had begun has won the guest's ownership record. */
import { type OwnershipRegister, randomId, type Settings } from "@godwit/actor";
import type { Epoch, OwnershipRecord, RestoreRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";

/** Between two looks at a record that cannot be reached, ms. */
const LOOK_AGAIN_MS = 300;

/**
 * Returns once it is known. `epoch`: under which it would have been won. A record of before that may be older than a write of the dead which is
 * still on its way, so it is written again, as it was: after that no such write can land any more (O5).
 */
export const isOurs = Effect.fnUntraced(function* (
  asked: RestoreRequest,
  epoch: number,
  settings: Pick<Settings, "node" | "incarnation">,
  register: OwnershipRegister,
): Effect.fn.Return<boolean> {
  for (;;) {
    const entry = yield* register.read(asked.guest);
    if (entry !== "Unknown") {
      if (entry?.record.migration === asked.id && entry.record.state === "destination") return true;
      if (entry !== null && entry.record.epoch >= epoch) return false;
      const op = `${settings.incarnation}-unrestored-${randomId()}`;
      const record: OwnershipRecord = { ...(entry?.record ?? homeOf(asked, settings.node)), op };
      const outcome = yield* register.write(asked.guest, record, entry?.revision ?? 0);
      if (typeof outcome === "object") return false;
    }
    yield* Effect.sleep(LOOK_AGAIN_MS);
  }
});

/** Of a guest that godwit had never moved: what a save would have written. */
const homeOf = ({ id, stop }: RestoreRequest, node: string): Omit<OwnershipRecord & { state: "source" }, "op"> => ({
  state: "source",
  epoch: 1 as Epoch,
  migration: id,
  node,
  open: false,
  wasRunning: !stop,
});
