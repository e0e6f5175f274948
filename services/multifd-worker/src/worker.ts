/** A multifd worker: takes work items, sends packets, remembers nothing. */
import { announceReady, folderNeed, nextTurn, type Settings } from "@godwit/actor";
import { Fabric, type Message, type Subscription } from "@godwit/fabric";
import {
  decodeFileItem,
  decodeWorkItem,
  encodeAcknowledgement,
  encodeFileAnswer,
  isOfDevice,
  type LanePurpose,
  NO_XBZRLE,
  type Route,
  subjects,
  type WorkItem,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { type DirectLanes, makeDirectLanes } from "./direct-lanes.ts";
import { makeFileCopier } from "./file-copier.ts";
import { makePacker, type Packer } from "./packing.ts";
import { makeSealingPacker, ROOM_BYTES, type SealingPacker } from "./sealing.ts";

/** Work items that may wait: every channel's window several times over; what comes on top is dropped and sent again. */
const WAITING_ITEMS_MAX = 16_384;
/**
 * Packets between two turns of the event loop. A published buffer may not be written to before the turn ends, so this is also the
 * number of packet buffers (2 MiB in all); heartbeats and socket writes wait for so many packets at most.
 */
const PACKETS_PER_TURN = 8;

/** Serves the work subject of this worker for ever. */
export const runWorker = Effect.fnUntraced(function* (
  settings: Settings,
  id: string,
): Effect.fn.Return<never, unknown, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const packer = makePacker(settings.runtimeDirectory);
  yield* Effect.addFinalizer(() => Effect.sync(packer.close));
  const direct = yield* makeDirectLanes;
  const sending: Sending = {
    packer: makeSealingPacker(packer, settings.runtimeDirectory),
    fabric,
    direct,
    incarnation: settings.incarnation,
    node: settings.node,
    purposeOf: (item) => (isOfDevice(item) ? "devices" : "ram"),
    publish: (item, route, packet) => fabric.publish(dataSubject(item, route), packet, "bulk"),
  };
  const work = yield* fabric.subscribe(subjects.work(settings.node, id, "*"), { capacity: WAITING_ITEMS_MAX });
  yield* answerUrgently(settings, id, packer, direct);
  yield* copyFiles(settings, id);
  const { node, incarnation, runtimeDirectory } = settings;
  yield* announceReady(settings, { role: "multifd-worker", node, id, incarnation }, "multifd worker", [
    folderNeed(runtimeDirectory),
  ]);
  return yield* sendFor(work, sending);
});

/**
 * Serves pages that a guest waits for (postcopy), on connections that never have bulk before them: an item of a page or a few, so that a
 * worker which has nothing else to do answers within a round trip.
 */
const answerUrgently = Effect.fnUntraced(function* (
  settings: Settings,
  id: string,
  packer: Packer,
  direct: DirectLanes,
) {
  const fabric = yield* Fabric;
  const sending: Sending = {
    packer: makeSealingPacker(packer, settings.runtimeDirectory),
    fabric,
    direct,
    incarnation: settings.incarnation,
    node: settings.node,
    purposeOf: () => "urgent",
    publish: (_item, route, packet) => fabric.publish(subjects.urgent(route), packet),
  };
  const work = yield* fabric.subscribe(subjects.urgentWork(settings.node, id, "*"), { capacity: WAITING_ITEMS_MAX });
  yield* Effect.forkScoped(sendFor(work, sending));
});

/** Serves the work of checkpoints beside it, an item in a turn: each moves 1 MiB at most. */
const copyFiles = Effect.fnUntraced(function* (settings: Settings, id: string) {
  const fabric = yield* Fabric;
  const copier = makeFileCopier(settings.runtimeDirectory);
  yield* Effect.addFinalizer(() => Effect.sync(copier.close));
  const work = yield* fabric.subscribe(subjects.fileWork(settings.node, id), { capacity: WAITING_ITEMS_MAX });
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.gen(function* () {
        for (const { data } of yield* work.takeAll) {
          const item = decodeFileItem(data);
          if (item.kind === "malformed") {
            yield* Effect.logWarning(`an item of a checkpoint was dropped: ${item.reason}`);
            continue;
          }
          if (Date.now() > item.deadline) continue;
          fabric.publish(subjects.fileAnswer(settings.node, item.id), encodeFileAnswer(copier.copy(item)));
          yield* nextTurn;
        }
      }),
    ),
  );
});

interface Sending {
  readonly packer: SealingPacker;
  readonly fabric: Fabric["Service"];
  readonly direct: DirectLanes;
  readonly incarnation: string;
  readonly node: string;
  readonly purposeOf: (item: WorkItem) => LanePurpose;
  /** By NATS. The packet's bytes may not be written to before the turn ends. */
  readonly publish: (item: WorkItem, route: Route, packet: Uint8Array) => void;
}

/** Sends what is asked for, some packets in a turn, for ever. */
const sendFor = Effect.fnUntraced(function* (work: Subscription, sending: Sending) {
  const buffers = Array.from({ length: PACKETS_PER_TURN }, () => new Uint8Array(ROOM_BYTES));
  while (true) {
    const messages = yield* work.takeAll;
    for (let at = 0; at < messages.length; at += PACKETS_PER_TURN) {
      const complaint = sendAll(messages.slice(at, at + PACKETS_PER_TURN), buffers, sending);
      if (complaint !== null) yield* Effect.logWarning(complaint);
      yield* nextTurn;
    }
  }
});

/** Sends a turn's packets; returns the last complaint, if any. */
const sendAll = (
  messages: ReadonlyArray<Message>,
  buffers: ReadonlyArray<Uint8Array>,
  { packer, fabric, direct, incarnation, node, purposeOf, publish }: Sending,
): string | null => {
  let complaint: string | null = null;
  messages.forEach((message, index) => {
    const item = decodeWorkItem(message.data);
    if (item.kind === "malformed") {
      complaint = `a work item was dropped: ${item.reason}`;
      return;
    }
    // Asked for by a sender that has long given up waiting, or read by a worker that was asleep (R7).
    if (Date.now() > item.deadline) return;
    const route: Route = { migration: item.migration, source: node, destination: destinationOf(message.subject) };
    try {
      const pack = (room: Uint8Array) => packer.pack(item, route.destination, room);
      if (item.lane === "direct" && direct.send(item, purposeOf(item), route, pack)) return;
      publish(item, route, pack(buffers[index]!));
      if (item.lane === "direct") direct.want(item, purposeOf(item), route);
    } catch (error) {
      complaint = `item ${item.item} of round ${item.round} cannot be read: ${reasonOf(error)}`;
      refuse(item, route, reasonOf(error), fabric, incarnation);
    }
  });
  return complaint;
};

/** Who asks says it by the subject, and may only use the one that is allowed to it: a destination has pages sent to itself alone. */
const destinationOf = (subject: string): string => subject.slice(subject.lastIndexOf(".") + 1);

const dataSubject = (item: WorkItem, route: Route): string =>
  isOfDevice(item) ? subjects.deviceChannel(route, item.channel) : subjects.channel(route, item.channel);

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Tells the producer, so that it need not wait for the item to be late. */
const refuse = (item: WorkItem, route: Route, reason: string, fabric: Fabric["Service"], incarnation: string): void => {
  const refusal = encodeAcknowledgement({
    kind: "refused",
    migration: item.migration,
    epoch: item.epoch,
    round: item.round,
    incarnation,
    items: Uint32Array.of(item.item),
    normalPages: 0,
    wireBytes: 0,
    xbzrle: NO_XBZRLE,
    reason,
    differing: new Uint8Array(0),
  });
  fabric.publish(isOfDevice(item) ? subjects.deviceRefusal(route) : subjects.refusal(route), refusal);
};
