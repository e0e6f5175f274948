/** Brings the missing pages of a guest that runs here from its source, until all are there. */
import { makeAlarm, makeEventLoop, nextTurn, type Settings, watchWorkers } from "@godwit/actor";
import { Fabric, letGo, type Message } from "@godwit/fabric";
import type { DirectDestination } from "@godwit/fabric/direct";
import type { MissingMemory } from "@godwit/guest";
import { type Bitmap, PAGE_BYTES } from "@godwit/memory";
import {
  compressionLevelOf,
  countPacket,
  decodeAcknowledgement,
  decodePacket,
  encodeWorkItem,
  fixedCompressionOf,
  type Lane,
  POSTCOPY_ROUND,
  type PostcopyInfo,
  packetPagesWithin,
  subjects,
  wantedLane,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import {
  type Destination,
  isExpected,
  makePostcopy,
  type PostcopyBlock,
  type PostcopyEffect,
  type PostcopyEvent,
  postcopyInfoOf,
  stepPostcopy,
  type Way,
  wayOf,
} from "./decisions/index.ts";
import { makePlacer } from "./placing.ts";

const WAITING_REFUSALS_MAX = 1024;
/** How often the session is told how far it is, ms. */
const TELL_MS = 100;
/** A request of long ago is as good as a new one: the source's memory stands still. So no clock of another host matters. */
const NO_DEADLINE = Number.MAX_SAFE_INTEGER;

export interface Fetching {
  /** Packets of the multifd channels, opened, one at a turn of the event loop: a page that is waited for comes in between. */
  readonly take: (messages: ReadonlyArray<Message>) => Effect.Effect<void>;
  readonly say: (word: "Pause" | "Recover") => void;
  /** Goes by the destination's parameters as they are now. */
  readonly tune: () => void;
}

export const blocksOf = ({ offer }: Pick<Destination, "offer">): ReadonlyArray<PostcopyBlock> =>
  offer.blocks.map((block) => ({
    pages: block["length-bytes"] / PAGE_BYTES,
    hostPages: Math.max(1, block["page-size"] / PAGE_BYTES),
  }));

/** Wall-clock time as fine as a fault needs it, ms since 1970. */
const nowMs = (): number => performance.timeOrigin + performance.now();

/** The guest's own word on its waiting, where it has one: it knows which of its threads waited. */
const withBlocktime = (info: PostcopyInfo, { blocktime }: MissingMemory): PostcopyInfo => {
  const counted = blocktime?.() ?? null;
  return counted === null ? info : { ...info, blocktime: counted.allMs, "vcpu-blocktime": counted.vcpusMs };
};

/** Works until the scope ends. `seen` is told how far it is, and at the end that all is there, once the guest waits for nothing any more. */
export const startFetching = Effect.fnUntraced(function* (
  destination: Destination,
  work: {
    readonly settings: Settings;
    readonly direct: DirectDestination;
    readonly memory: MissingMemory;
    /** Opens what was sealed. */
    readonly open: (messages: ReadonlyArray<Message>) => ReadonlyArray<Message>;
    /** Becomes the fetching's own. */
    readonly missing: ReadonlyArray<Bitmap.Bitmap>;
    readonly seen: (info: PostcopyInfo, isAllThere: boolean) => void;
  },
): Effect.fn.Return<Fetching, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  const { memory, missing, seen } = work;
  const { migration, route, epoch, source, node, offer, parameters, capabilities } = destination;
  const blocks = blocksOf(destination);
  const postcopy = makePostcopy({
    blocks,
    missing,
    itemPagesMax: packetPagesWithin(Math.min(fabric.maxPayloadBytes, offer["max-payload"] ?? Number.POSITIVE_INFINITY)),
    channels: parameters["multifd-channels"],
    bytesPerSecond: parameters["max-postcopy-bandwidth"],
    preempt: capabilities["postcopy-preempt"] === true,
    prefetch: parameters["postcopy-prefetch"] === "on",
    autoRecover: parameters["auto-recover"] === "on",
    now: nowMs(),
  });
  const placer = makePlacer(memory, blocks);
  let toldAt = 0;
  let toldState = "active";
  let isOver = false;

  const dispatch = makeEventLoop<PostcopyEvent>((event) => {
    const now = nowMs();
    for (const effect of stepPostcopy(postcopy, event, now)) perform(effect);
    if (!isOver && now - toldAt >= TELL_MS) {
      toldAt = now;
      const info = postcopyInfoOf(postcopy, now);
      if (info.state !== toldState) tellState(info);
      seen(info, false);
    }
  });
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  yield* Effect.addFinalizer(() => Effect.sync(alarm.stop));
  const fork = (effect: Effect.Effect<unknown>): void => void run(Effect.forkIn(effect, scope));
  const tellState = ({ state, reason }: PostcopyInfo): void => {
    toldState = state;
    const line = `postcopy of guest ${destination.guest} is ${state}${reason === undefined ? "" : `: ${reason}`}`;
    fork(state === "active" ? Effect.logInfo(line) : Effect.logWarning(line));
  };

  const perform = (effect: PostcopyEffect): void => {
    switch (effect._tag) {
      case "Ask":
        return ask(effect);
      case "Zero":
        return guarded(() => memory.zero(effect.block, effect.page, 1));
      case "AllThere":
        isOver = true;
        alarm.stop();
        return fork(conclude);
      case "WakeAt":
        // The alarm goes by the clock on the wall, which may have been set since.
        return alarm.wakeAt(Date.now() + Math.max(0, effect.at - nowMs()));
    }
  };
  /** A guest that is gone is told of by whoever watches it; what was not placed is asked for again. */
  const guarded = (place: () => void): void => {
    try {
      place();
    } catch (error) {
      fork(Effect.logWarning(`a page of guest ${destination.guest} could not be placed: ${error}`));
    }
  };

  const ask = ({ way, worker, item, channel, channelEpoch }: Extract<PostcopyEffect, { _tag: "Ask" }>): void => {
    const { work: asked } = item;
    if (asked.kind !== "pages") return;
    const bytes = encodeWorkItem({
      kind: "pages",
      migration,
      epoch,
      round: POSTCOPY_ROUND,
      item: item.item,
      channel,
      channelEpoch,
      // Who waits for a page waits for its compression, too.
      compression: way === "urgent" ? "none" : fixedCompressionOf(parameters),
      level: way === "urgent" ? 0 : compressionLevelOf(parameters),
      deadline: NO_DEADLINE,
      lane: wantedLane(parameters),
      block: asked.block,
      fileOffset: offer.blocks[asked.block]?.["file-offset"] ?? 0,
      zeroPages: parameters["zero-page-detection"] === "none" ? "none" : "worker",
      // A missing page has nothing that a delta could change.
      xbzrle: null,
      runs: asked.runs,
    });
    const subject = way === "urgent" ? subjects.urgentWork(source, worker, node) : subjects.work(source, worker, node);
    fabric.publish(subject, bytes);
  };

  const conclude: Effect.Effect<void> = memory.end.pipe(
    Effect.matchEffect({
      onSuccess: () => Effect.sync(() => seen(withBlocktime(postcopyInfoOf(postcopy, nowMs()), memory), true)),
      // It waits for nothing, whatever it says; but its record is closed only once it knows.
      onFailure: (error) =>
        Effect.andThen(
          Effect.logWarning(`guest ${destination.guest} does not hear that its pages are there: ${error.message}`),
          Effect.delay(
            Effect.suspend(() => conclude),
            TELL_MS,
          ),
        ),
    }),
  );

  const takeOne = (way: Way, { data }: Message): void => {
    arrived(way, data);
    letGo(data);
  };
  const arrived = (way: Way, data: Uint8Array): void => {
    const packet = decodePacket(data);
    if (packet.kind !== "pages" || packet.migration !== migration || packet.epoch !== epoch) return;
    if (packet.round !== POSTCOPY_ROUND || wayOf(packet.item) !== way || !isExpected(postcopy, way, packet)) return;
    guarded(() => {
      if (placer.place(packet) === "placed")
        dispatch({ _tag: "Arrived", way, item: packet.item, wireBytes: data.length });
    });
  };

  const takeUrgent = (arrived: ReadonlyArray<Message>, lane: Lane): void => {
    for (const message of work.open(arrived)) {
      if (destination.lanes !== null) countPacket(destination.lanes, "urgent", lane, message.subject);
      takeOne("urgent", message);
    }
  };
  // A turn of the event loop, or a fiber's, would be a part of what a vCPU waits.
  yield* Effect.orDie(fabric.listen(subjects.urgent(route), (message) => takeUrgent([message], "nats")));
  if (parameters.lane !== "nats") {
    const landing = yield* work.direct.land(
      { route, epoch, purpose: "urgent", subjectOf: () => subjects.urgent(route) },
      subjects.directLane(route),
    );
    yield* Effect.forkScoped(Effect.forever(Effect.map(landing.takeAll, (arrived) => takeUrgent(arrived, "direct"))));
  }
  const refusals = yield* Effect.orDie(fabric.subscribe(subjects.refusal(route), { capacity: WAITING_REFUSALS_MAX }));
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(refusals.takeAll, (messages) => {
        for (const { data } of messages) {
          const word = decodeAcknowledgement(data);
          if (word.kind !== "refused" || word.epoch !== epoch || word.round !== POSTCOPY_ROUND) continue;
          for (const item of word.items) dispatch({ _tag: "Refused", way: wayOf(item), item });
        }
      }),
    ),
  );
  // Begins with all workers that are there, so that no channel is moved from one to the next at once.
  yield* Effect.orDie(
    watchWorkers(
      source,
      (news) => Effect.sync(() => news._tag !== "Denied" && dispatch(news)),
      Effect.sync(() => dispatch({ _tag: "Tick" })),
    ),
  );
  yield* Effect.forkScoped(
    memory
      .touches((touch) => dispatch({ ...touch, _tag: "Touched", since: nowMs() }))
      .pipe(Effect.catch((error) => Effect.logWarning(`guest ${destination.guest}: ${error.message}`))),
  );
  yield* Effect.forkScoped(
    memory.vcpus.pipe(
      Effect.map((count) => dispatch({ _tag: "Vcpus", count })),
      Effect.ignore,
    ),
  );
  alarm.wakeAt(Date.now() + TELL_MS);
  return {
    take: (messages) =>
      Effect.forEach(
        messages,
        (message) =>
          Effect.andThen(
            Effect.sync(() => takeOne("background", message)),
            nextTurn,
          ),
        { discard: true },
      ),
    say: (word) => dispatch({ _tag: word }),
    tune: () => dispatch({ _tag: "Tune", bytesPerSecond: destination.parameters["max-postcopy-bandwidth"] }),
  };
});
