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
import { makeAtOnce } from "./at-once.ts";
import { type DirectLanes, makeDirectLanes } from "./direct-lanes.ts";
import { makeFileCopier } from "./file-copier.ts";
import { makePacker } from "./packing.ts";
import { makeRooms, type Packed, type Rooms } from "./rooms.ts";
import { makeSealingPacker, type SealingPacker } from "./sealing.ts";

/** Work items that may wait: every channel's window several times over; what comes on top is dropped and sent again. */
const WAITING_ITEMS_MAX = 16_384;
/** Packets between two turns of the event loop: heartbeats and socket writes wait for so many at most. */
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
  const rooms = makeRooms();
  const sendingFor = (way: Pick<Sending, "purposeOf" | "publish">): Sending => ({
    rooms,
    packer: makeSealingPacker(packer, settings.runtimeDirectory),
    fabric,
    direct,
    incarnation: settings.incarnation,
    node: settings.node,
    ...way,
  });
  const sending = sendingFor({
    purposeOf: (item) => (isOfDevice(item) ? "devices" : "ram"),
    publish: (item, route, { bytes, done }) => fabric.publishInPlace(dataSubject(item, route), bytes, "bulk", done),
  });
  const urgently = sendingFor({
    purposeOf: () => "urgent",
    publish: (_item, route, { bytes, done }) => fabric.publishInPlace(subjects.urgent(route), bytes, "control", done),
  });
  const work = yield* fabric.subscribe(subjects.work(settings.node, id, "*"), { capacity: WAITING_ITEMS_MAX });
  yield* answerUrgently(settings, id, urgently);
  yield* copyFiles(settings, id);
  const { node, incarnation, runtimeDirectory } = settings;
  yield* announceReady(settings, { role: "multifd-worker", node, id, incarnation }, "multifd worker", [
    folderNeed(runtimeDirectory),
  ]);
  return yield* sendFor(work, sending);
});

/**
 * Serves pages that a guest waits for (postcopy), on connections that never have bulk before them: an item of a page or a few, and at
 * once, so that a worker which has nothing else to do answers within a round trip.
 */
const answerUrgently = Effect.fnUntraced(function* (settings: Settings, id: string, sending: Sending) {
  const fabric = yield* Fabric;
  const run = Effect.runForkWith(yield* Effect.context<never>());
  const limits = { perTurn: PACKETS_PER_TURN, waitingMax: WAITING_ITEMS_MAX };
  const atOnce = makeAtOnce<Message>(limits, (message) => {
    const complaint = send(message, sending);
    if (complaint !== null) run(Effect.logWarning(complaint));
  });
  yield* Effect.addFinalizer(() => Effect.sync(atOnce.stop));
  yield* fabric.listen(subjects.urgentWork(settings.node, id, "*"), atOnce.take);
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
  readonly rooms: Rooms;
  readonly packer: SealingPacker;
  readonly fabric: Fabric["Service"];
  readonly direct: DirectLanes;
  readonly incarnation: string;
  readonly node: string;
  readonly purposeOf: (item: WorkItem) => LanePurpose;
  /** By NATS. */
  readonly publish: (item: WorkItem, route: Route, packet: Packed) => void;
}

/** Sends what is asked for, some packets in a turn, for ever. */
const sendFor = Effect.fnUntraced(function* (work: Subscription, sending: Sending) {
  while (true) {
    const messages = yield* work.takeAll;
    for (let at = 0; at < messages.length; at += PACKETS_PER_TURN) {
      let complaint: string | null = null;
      for (const message of messages.slice(at, at + PACKETS_PER_TURN)) complaint = send(message, sending) ?? complaint;
      if (complaint !== null) yield* Effect.logWarning(complaint);
      yield* nextTurn;
    }
  }
});

/** Sends what an item asks for; returns what to complain of, if anything. */
const send = (
  message: Message,
  { rooms, packer, fabric, direct, incarnation, node, purposeOf, publish }: Sending,
): string | null => {
  const item = decodeWorkItem(message.data);
  if (item.kind === "malformed") return `a work item was dropped: ${item.reason}`;
  // Asked for by a sender that has long given up waiting, or read by a worker that was asleep (R7).
  if (Date.now() > item.deadline) return null;
  const route: Route = { migration: item.migration, source: node, destination: destinationOf(message.subject) };
  try {
    const packet = rooms.pack((room) => packer.pack(item, route.destination, room));
    if (item.lane === "direct" && direct.send(item, purposeOf(item), route, packet)) return null;
    publish(item, route, packet);
    if (item.lane === "direct") direct.want(item, purposeOf(item), route);
    return null;
  } catch (error) {
    refuse(item, route, reasonOf(error), fabric, incarnation);
    return `item ${item.item} of round ${item.round} cannot be read: ${reasonOf(error)}`;
  }
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
