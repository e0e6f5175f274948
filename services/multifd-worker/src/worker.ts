/** A multifd worker: takes work items, sends packets, remembers nothing. */
import type { Settings } from "@godwit/actor";
import { Fabric, type Message } from "@godwit/fabric";
import { decodeWorkItem, encodeAcknowledgement, subjects, type WorkItem } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { makePacker, PACKET_BYTES_MAX, type Packer } from "./packing.ts";

/** Work items that may wait: every channel's window several times over; what comes on top is dropped and sent again. */
const WAITING_ITEMS_MAX = 16_384;
/**
 * Packets between two turns of the event loop. A published buffer may not be written to before the turn ends, so this is also the
 * number of packet buffers (2 MiB in all); heartbeats and socket writes wait for so many packets at most.
 */
const PACKETS_PER_TURN = 8;

const nextTurn = Effect.callback<void>((resume) => {
  const handle = setImmediate(() => resume(Effect.void));
  return Effect.sync(() => clearImmediate(handle));
});

/** Serves the work subject of this worker for ever. */
export const runWorker = Effect.fnUntraced(function* (
  settings: Settings,
  id: string,
): Effect.fn.Return<never, unknown, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const packer = makePacker(settings.runtimeDirectory);
  yield* Effect.addFinalizer(() => Effect.sync(packer.close));
  const buffers = Array.from({ length: PACKETS_PER_TURN }, () => new Uint8Array(PACKET_BYTES_MAX));
  const work = yield* fabric.subscribe(subjects.work(settings.node, id), { capacity: WAITING_ITEMS_MAX });
  yield* fabric.announce({ role: "multifd-worker", node: settings.node, id, incarnation: settings.incarnation });
  yield* Effect.logInfo("multifd worker ready");
  while (true) {
    const messages = yield* work.takeAll;
    for (let at = 0; at < messages.length; at += PACKETS_PER_TURN) {
      const complaint = sendAll(
        messages.slice(at, at + PACKETS_PER_TURN),
        packer,
        buffers,
        fabric,
        settings.incarnation,
      );
      if (complaint !== null) yield* Effect.logWarning(complaint);
      yield* nextTurn;
    }
  }
});

/** Sends a turn's packets; returns the last complaint, if any. */
const sendAll = (
  messages: ReadonlyArray<Message>,
  packer: Packer,
  buffers: ReadonlyArray<Uint8Array>,
  fabric: Fabric["Service"],
  incarnation: string,
): string | null => {
  let complaint: string | null = null;
  messages.forEach((message, index) => {
    const item = decodeWorkItem(message.data);
    if (item.kind === "malformed") {
      complaint = `a malformed work item was dropped: ${item.reason}`;
      return;
    }
    // Asked for by a sender that has long given up waiting, or read by a worker that was asleep (R7).
    if (Date.now() > item.deadline) return;
    try {
      fabric.publish(subjects.channel(item.migration, item.channel), packer.pack(item, buffers[index]!), "bulk");
    } catch (error) {
      complaint = `item ${item.item} of round ${item.round} cannot be read: ${reasonOf(error)}`;
      refuse(item, reasonOf(error), fabric, incarnation);
    }
  });
  return complaint;
};

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Tells the producer, so that it need not wait for the item to be late. */
const refuse = (item: WorkItem, reason: string, fabric: Fabric["Service"], incarnation: string): void => {
  const refusal = encodeAcknowledgement({
    kind: "refused",
    migration: item.migration,
    epoch: item.epoch,
    round: item.round,
    incarnation,
    items: Uint32Array.of(item.item),
    normalPages: 0,
    wireBytes: 0,
    reason,
    differing: new Uint8Array(0),
  });
  fabric.publish(subjects.acknowledgement(item.migration), refusal);
};
