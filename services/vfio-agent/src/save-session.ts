/** The devices of one guest at its source, for one attempt: feeds the decisions with events and carries out what they want. */
import { crc32 } from "node:zlib";
import { makeAlarm, makeEventLoop, type Settings } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import {
  compressionLevelOf,
  configStream,
  dataStream,
  decodeAcknowledgement,
  encodeWorkItem,
  fixedCompressionOf,
  type GodwitError,
  json,
  PAGE_BYTES,
  type Parameters,
  packetPagesWithin,
  SaveReport,
  subjects,
  toError,
  type VfioAnswer,
  wantedLane,
} from "@godwit/protocol";
import type { DeviceSpec, VfioDevice } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { openArena } from "./arena.ts";
import {
  type DeviceOp,
  makeSaving,
  type Saving,
  type SavingEffect,
  type SavingEvent,
  saveReportOf,
  stepSaving,
  windowBytes,
} from "./decisions/index.ts";
import { accessDevice, type DeviceAccess, type Failed } from "./device-access.ts";
import { layoutOf, makeDirtyPages } from "./dirty-pages.ts";
import { failedOf } from "./failed-step.ts";
import { type Latencies, STOPPING_ARCS } from "./latencies.ts";

/** Acknowledgements that may wait: one for each slice that windows allow. */
const WAITING_ACKNOWLEDGEMENTS_MAX = 4096;
/** A worker that gets to an item later than this drops it, ms: by then it has long been handed out again. */
const ITEM_LIFE_MS = 30_000;

/** The end of a session is not kept waiting by a device that answers nothing, ms. */
const STOP_LOGGING_MS = 1000;

const reports = json(SaveReport);

export interface SaveSession {
  readonly saving: Saving;
  readonly dispatch: (event: SavingEvent) => void;
  readonly show: () => void;
  /** Guest pages that the devices wrote, for this sync of the RAM sender, from page `from` on. */
  readonly dirtyPages: (sync: number, from: number) => Effect.Effect<VfioAnswer, GodwitError>;
}

export interface SaveOptions {
  readonly migration: string;
  /** The node at the other end. */
  readonly peer: string;
  readonly epoch: number;
  readonly guest: string;
  readonly parameters: Parameters;
  readonly parametersRevision: number;
  readonly want: Saving["want"];
  readonly specs: ReadonlyArray<DeviceSpec>;
  /** Lengths of the guest's RAMBlocks. */
  readonly blockBytes: ReadonlyArray<number>;
  /** Pages that a packet may hold on its way to the destination. */
  readonly packetPagesMax: number;
}

/** Starts the session; it works until the scope ends. */
export const startSaving = Effect.fnUntraced(function* (
  options: SaveOptions,
  settings: Settings,
  latencies: Latencies,
): Effect.fn.Return<SaveSession, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  const fork = (work: Effect.Effect<unknown>): void => void run(Effect.forkIn(work, scope));
  const { migration, epoch, guest, specs } = options;
  const route = { migration, source: settings.node, destination: options.peer };
  const saving = makeSaving({
    migration,
    epoch,
    guest,
    incarnation: settings.incarnation,
    parameters: options.parameters,
    parametersRevision: options.parametersRevision,
    devices: specs.map(({ name, provider }) => ({ device: name, provider })),
    itemPagesMax: Math.min(packetPagesWithin(fabric.maxPayloadBytes), options.packetPagesMax),
    want: options.want,
    now: Date.now(),
  });
  const arena = openArena(settings.runtimeDirectory, route, epoch, windowBytes(saving));
  yield* Effect.addFinalizer(() => Effect.sync(arena.remove));
  const devices: DeviceAccess[] = [];
  for (const spec of specs) devices.push(yield* accessDevice(spec, "source", latencies));
  const logging = new Set<DeviceAccess>();
  const layout = layoutOf(options.blockBytes);
  const digests = specs.map(() => 0);
  const rooms = specs.map(() => new Uint8Array(0));

  const dispatch = makeEventLoop<SavingEvent>((event) => {
    for (const effect of stepSaving(saving, event, Date.now())) perform(effect);
    if (saving.phase === "Resumed" || saving.phase === "Discarded") letGoOfAll();
  });
  let isLetGo = false;
  /** The devices are where they shall be: what is left of the session only says so. */
  const letGoOfAll = (): void => {
    if (isLetGo) return;
    isLetGo = true;
    arena.remove();
    fork(
      Effect.andThen(
        stopLogging,
        Effect.forEach(devices, ({ close }) => close, { discard: true }),
      ),
    );
  };
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  yield* Effect.addFinalizer(() => Effect.sync(alarm.stop));

  const perform = (effect: SavingEffect): void => {
    switch (effect._tag) {
      case "Op":
        return fork(Effect.map(attempt(effect.device, effect.op), dispatch));
      case "Dispatch":
        return handOut(effect);
      case "Report":
        return show();
      case "WakeAt":
        return alarm.wakeAt(effect.at);
    }
  };
  const show = (): void => void fabric.publish(subjects.saveReport(route), reports.encode(saveReportOf(saving)));

  /** Never fails, and never forgets to answer: a step that throws has failed as well. */
  const attempt = (index: number, op: DeviceOp): Effect.Effect<SavingEvent> =>
    Effect.matchCauseEager(take(index, op), {
      onSuccess: (event): SavingEvent => event,
      onFailure: (cause): SavingEvent => ({ _tag: "OpFailed", device: index, ...failedOf(cause, "source") }),
    });

  const take = (index: number, op: DeviceOp): Effect.Effect<SavingEvent, Failed> => {
    const device = devices[index]!;
    switch (op._tag) {
      case "Open":
        return Effect.flatMap(device.open, (opened) =>
          logDma(device, opened).pipe(
            Effect.andThen(device.use("ask for its state", ({ state }) => state)),
            Effect.map((state) => ({
              _tag: "Opened",
              device: index,
              features: opened.features,
              state,
              switchoverMs: latencies.of(device.name, STOPPING_ARCS),
            })),
          ),
        );
      case "Arc":
        return Effect.map(device.arc(op.to), (times) => ({ _tag: "Arrived", device: index, state: op.to, ...times }));
      case "Reset":
        return Effect.as(
          device.use("reset", ({ reset }) => reset),
          { _tag: "Arrived", device: index, state: "RUNNING", ms: 0 },
        );
      case "Info":
        return info(index);
      case "Read":
        return read(index, op);
      case "ReadConfig":
        return readConfig(index);
    }
  };

  /**
   * From before the first sync on, until the devices are let go of. Who only lets go of them names no memory, and a device that shall
   * log none answers EINVAL (uAPI, DMA_LOGGING_START): it must be led back to RUNNING all the same.
   */
  const logDma = (device: DeviceAccess, { dmaLogging }: VfioDevice): Effect.Effect<void, Failed> =>
    dmaLogging === null || layout.length === 0
      ? Effect.void
      : device
          .use("log its DMA", () => dmaLogging.start(PAGE_BYTES, layout))
          .pipe(Effect.tap(() => Effect.sync(() => logging.add(device))));
  const stopLogging = Effect.suspend(() => {
    const those = [...logging];
    logging.clear();
    return Effect.forEach(those, (device) =>
      Effect.ignore(
        Effect.timeout(
          device.use("log no more", ({ dmaLogging }) => dmaLogging?.stop ?? Effect.void),
          STOP_LOGGING_MS,
        ),
      ),
    );
  });
  yield* Effect.addFinalizer(() => stopLogging);

  const dirty = makeDirtyPages(
    layout,
    Effect.suspend(() =>
      Effect.forEach(devices, (device) =>
        device.use("ask for the pages it wrote", ({ dmaLogging }) =>
          dmaLogging === null
            ? Effect.succeed([])
            : Effect.forEach(layout, (range) => dmaLogging.report(range, PAGE_BYTES)),
        ),
      ),
    ),
  );
  const dirtyPages: SaveSession["dirtyPages"] = (sync, from) =>
    Effect.mapError(dirty.ask(sync, from), ({ failure }) => toError(failure));

  const info = (index: number): Effect.Effect<SavingEvent, Failed> =>
    devices[index]!.use("ask for its bytes", (device) =>
      Effect.gen(function* () {
        const inPrecopy = saving.devices[index]!.state.startsWith("PRE_COPY");
        const precopy = inPrecopy ? yield* device.precopyInfo : null;
        const stopCopyBytes = yield* device.stopCopyBytes;
        return {
          _tag: "Info",
          device: index,
          initialBytes: precopy?.initialBytes ?? null,
          dirtyBytes: precopy?.dirtyBytes ?? null,
          stopCopyBytes,
        } as const;
      }),
    );

  const floorOf = (stream: number): number => saving.slices.streams.get(stream)?.floor ?? 0;

  const read = (index: number, op: Extract<DeviceOp, { _tag: "Read" }>): Effect.Effect<SavingEvent, Failed> =>
    devices[index]!.use("read its state", (device) => {
      if (rooms[index]!.length < op.bytesMax) rooms[index] = new Uint8Array(op.bytesMax);
      const room = rooms[index]!.subarray(0, op.bytesMax);
      return Effect.map(device.read(room), (bytes) => {
        const data = room.subarray(0, bytes);
        arena.write(dataStream(index), op.offset, data, floorOf(dataStream(index)));
        digests[index] = crc32(data, digests[index]);
        return { _tag: "Read", device: index, bytes, digest: digests[index]! } as const;
      });
    });

  const readConfig = (index: number): Effect.Effect<SavingEvent, Failed> =>
    devices[index]!.use("read its configuration space", (device) =>
      Effect.map(device.readConfig, (config) => {
        arena.write(configStream(index), 0, config, 0);
        return { _tag: "ConfigRead", device: index, bytes: config.length, digest: crc32(config) } as const;
      }),
    );

  const handOut = (effect: Extract<SavingEffect, { _tag: "Dispatch" }>): void => {
    const item = encodeWorkItem({
      kind: "slice",
      migration,
      epoch,
      // Streams are numbered, they have no rounds.
      round: 1,
      item: effect.item,
      channel: effect.channel,
      channelEpoch: effect.channelEpoch,
      compression: fixedCompressionOf(options.parameters),
      level: compressionLevelOf(options.parameters),
      deadline: Date.now() + ITEM_LIFE_MS,
      lane: wantedLane(options.parameters),
      stream: effect.stream,
      offset: effect.offset,
      bytes: effect.bytes,
    });
    fabric.publish(subjects.work(settings.node, effect.worker, options.peer), item);
  };

  const acknowledgements = yield* Effect.orDie(
    fabric.subscribe(subjects.deviceAcknowledgement(route), { capacity: WAITING_ACKNOWLEDGEMENTS_MAX }),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(acknowledgements.takeAll, (messages) => {
        for (const message of messages) {
          const ack = decodeAcknowledgement(message.data);
          if (ack.kind === "malformed" || ack.migration !== migration || ack.epoch !== epoch) continue;
          if (ack.kind === "applied") dispatch({ _tag: "Applied", items: ack.items });
        }
      }),
    ),
  );
  const refusals = yield* Effect.orDie(
    fabric.subscribe(subjects.deviceRefusal(route), { capacity: WAITING_ACKNOWLEDGEMENTS_MAX }),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(refusals.takeAll, (messages) => {
        for (const message of messages) {
          const word = decodeAcknowledgement(message.data);
          if (word.kind !== "refused" || word.migration !== migration || word.epoch !== epoch) continue;
          dispatch({ _tag: "Refused", items: word.items, reason: word.reason });
        }
      }),
    ),
  );
  dispatch({ _tag: "Tick" });
  show();
  return { saving, dispatch, show, dirtyPages };
});
