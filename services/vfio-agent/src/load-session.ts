/** The devices of one guest at its destination, for one attempt: feeds the decisions with events and carries out what they want. */

import { crc32 } from "node:zlib";
import { makeAlarm, makeEventLoop, openMessages, type Settings } from "@godwit/actor";
import { CLOSED, destinationSealing, makeOpener, type Opener, readSealing } from "@godwit/encryption";
import { Fabric, letGo, type Message } from "@godwit/fabric";
import type { DirectDestination } from "@godwit/fabric/direct";
import { decompress } from "@godwit/memory";
import {
  ACK_ITEMS_MAX,
  countPacket,
  decodePacket,
  encodeAcknowledgement,
  isMalformed,
  json,
  type Lane,
  LoadReport,
  NO_XBZRLE,
  type OfferedDevice,
  type Parameters,
  SaveReport,
  SLICE_BYTES_MAX,
  subjects,
} from "@godwit/protocol";
import type { DeviceSpec } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import {
  type Loading,
  type LoadingEffect,
  type LoadingEvent,
  type LoadOp,
  loadReportOf,
  makeLoading,
  stepLoading,
} from "./decisions/index.ts";
import { accessDevice, type DeviceAccess, type Failed } from "./device-access.ts";
import { failedOf } from "./failed-step.ts";
import { type Latencies, STARTING_ARCS } from "./latencies.ts";
import { forQueue, makeJoiner } from "./piece-memory.ts";

/** Packets that may wait for their turn of the event loop: the source has at most 32 MiB unacknowledged; what comes on top is dropped and sent again. */
const WAITING_PACKETS_MAX = (32 * 1024 ** 2) / SLICE_BYTES_MAX + 128;
const WAITING_REPORTS_MAX = 64;

const reports = json(LoadReport);
const saveReports = json(SaveReport);
const NOTHING = new Uint8Array(0);

export interface LoadSession {
  readonly loading: Loading;
  readonly dispatch: (event: LoadingEvent) => void;
  readonly show: () => void;
}

export interface LoadOptions {
  readonly migration: string;
  /** The node at the other end. */
  readonly peer: string;
  readonly epoch: number;
  readonly guest: string;
  readonly parameters: Parameters;
  readonly want: Loading["want"];
  /** As they were offered, with where each is here. */
  readonly devices: ReadonlyArray<{ readonly offered: OfferedDevice; readonly spec: DeviceSpec }>;
}

/** Starts the session; it works until the scope ends. */
export const startLoading = Effect.fnUntraced(function* (
  options: LoadOptions,
  settings: Settings,
  latencies: Latencies,
  direct: DirectDestination,
): Effect.fn.Return<LoadSession, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  const fork = (work: Effect.Effect<unknown>): void => void run(Effect.forkIn(work, scope));
  const { migration, epoch, guest, parameters } = options;
  const route = { migration, source: options.peer, destination: settings.node };
  const configAfterIter = parameters["x-migration-load-config-after-iter"];
  const loading = makeLoading({
    migration,
    epoch,
    guest,
    incarnation: settings.incarnation,
    parameters,
    // On arm64 an interrupt set up by the configuration may need its controller's state, which comes with the guest's own.
    configAfterMemory: configAfterIter === "auto" ? process.arch === "arm64" : configAfterIter === "on",
    devices: options.devices.map(({ offered }) => offered),
    want: options.want,
    now: Date.now(),
  });
  const opener = openerOf(settings, options);
  if (opener.isSealed) loading.refusedPackets = opener.refusals;
  const devices: DeviceAccess[] = [];
  for (const { spec } of options.devices) devices.push(yield* accessDevice(spec, "destination", latencies));
  const digests = devices.map(() => 0);
  const joiners = devices.map(makeJoiner);

  const dispatch = makeEventLoop<LoadingEvent>((event) => {
    for (const effect of stepLoading(loading, event, Date.now())) perform(effect);
    if (loading.phase === "Running" || loading.phase === "Discarded") letGoOfAll();
  });
  const landing =
    parameters.lane === "nats"
      ? null
      : yield* direct.land(
          { route, epoch, purpose: "devices", subjectOf: (channel) => subjects.deviceChannel(route, channel) },
          subjects.deviceDirectLane(route),
        );
  if (landing !== null && landing.obstacle !== null)
    yield* Effect.logInfo(`device state of guest ${guest} comes by NATS: ${landing.obstacle}`);
  let isLetGo = false;
  /** The devices are where they shall be: what is left of the session only says so. */
  const letGoOfAll = (): void => {
    if (isLetGo) return;
    isLetGo = true;
    if (landing !== null) fork(landing.close);
    fork(Effect.forEach(devices, ({ close }) => close, { discard: true }));
  };
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  yield* Effect.addFinalizer(() => Effect.sync(alarm.stop));

  const perform = (effect: LoadingEffect): void => {
    switch (effect._tag) {
      case "Op":
        return fork(
          Effect.map(
            Effect.matchCauseEager(take(effect.device, effect.op), {
              onSuccess: (event): LoadingEvent => event,
              onFailure: (cause): LoadingEvent => ({
                _tag: "OpFailed",
                device: effect.device,
                ...failedOf(cause, "destination"),
              }),
            }),
            dispatch,
          ),
        );
      case "Acknowledge":
        return acknowledge(effect.items);
      case "Report":
        return show();
      case "WakeAt":
        return alarm.wakeAt(effect.at);
    }
  };
  const show = (): void => void fabric.publish(subjects.loadReport(route), reports.encode(loadReportOf(loading)));

  const acknowledge = (items: ReadonlyArray<number>): void => {
    for (let at = 0; at < items.length; at += ACK_ITEMS_MAX) {
      const bytes = encodeAcknowledgement({
        kind: "applied",
        migration,
        epoch,
        round: 1,
        incarnation: settings.incarnation,
        items: Uint32Array.from(items.slice(at, at + ACK_ITEMS_MAX)),
        normalPages: 0,
        wireBytes: 0,
        xbzrle: NO_XBZRLE,
        reason: "",
        differing: NOTHING,
      });
      fabric.publish(subjects.deviceAcknowledgement(route), bytes);
    }
  };

  const take = (index: number, op: LoadOp): Effect.Effect<LoadingEvent, Failed> => {
    const device = devices[index]!;
    switch (op._tag) {
      case "Open":
        return Effect.flatMap(device.open, (opened) =>
          device
            .use("ask for its state", ({ state }) => state)
            .pipe(
              Effect.map((state) => ({
                _tag: "Opened",
                device: index,
                features: opened.features,
                state,
                switchoverMs: latencies.of(device.name, STARTING_ARCS),
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
      case "Write": {
        const { bytes, digest } = joiners[index]!(digests[index]!, op.pieces);
        return device.use("write its state", (opened) =>
          Effect.map(opened.write(bytes), () => {
            digests[index] = digest;
            return { _tag: "Written", device: index, digest } as const;
          }),
        );
      }
      case "WriteConfig":
        return writeConfig(index, joiners[index]!(0, op.pieces).bytes);
    }
  };

  const writeConfig = (index: number, config: Uint8Array): Effect.Effect<LoadingEvent, Failed> =>
    devices[index]!.use("load its configuration space", (device) =>
      Effect.as(device.writeConfig(config), { _tag: "ConfigWritten", device: index, digest: crc32(config) } as const),
    );

  /** What is no slice of this attempt, or not whole, is dropped: it comes again. Payloads as they came stay in their message's memory. */
  const received = ({ data }: Message): void => {
    const packet = decodePacket(data);
    if (packet.kind !== "slice" || packet.migration !== migration || packet.epoch !== epoch) return letGo(data);
    const payload = decompress(packet.compression, packet.payload, packet.rawBytes);
    if (isMalformed(payload)) return letGo(data);
    const { item, offset, stream } = packet;
    const queued = forQueue(data, packet, payload as Uint8Array);
    dispatch({ _tag: "Slice", stream, piece: { item, offset, payload: queued } });
  };

  const packets = yield* Effect.orDie(
    fabric.subscribe(subjects.deviceChannels(route), { capacity: WAITING_PACKETS_MAX, plane: "bulk" }),
  );
  const takeAll = (arrived: ReadonlyArray<Message>, lane: Lane): Effect.Effect<void> =>
    Effect.suspend(() => {
      const { messages, complaint } = openMessages(opener, arrived);
      for (const message of messages) {
        if (loading.lanes !== null) countPacket(loading.lanes, "devices", lane, message.subject);
        received(message);
      }
      return complaint === null
        ? Effect.void
        : Effect.annotateLogs(
            Effect.logWarning(`a packet of device state was refused: ${complaint}; further ones are only counted`),
            { migration },
          );
    });
  yield* Effect.forkScoped(Effect.forever(Effect.flatMap(packets.takeAll, (arrived) => takeAll(arrived, "nats"))));
  if (landing !== null)
    yield* Effect.forkScoped(Effect.forever(Effect.flatMap(landing.takeAll, (arrived) => takeAll(arrived, "direct"))));
  const fromSource = yield* Effect.orDie(
    fabric.subscribe(subjects.saveReport(route), { capacity: WAITING_REPORTS_MAX }),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(fromSource.takeAll, (messages) => {
        for (const message of messages) {
          const report = saveReports.decode(message.data);
          if (isMalformed(report) || report.migration !== migration || report.epoch !== epoch) continue;
          const limit = report["downtime-limit"];
          if (limit !== undefined) dispatch({ _tag: "LimitTold", downtimeLimitMs: limit });
          for (const { device, "initial-end": at } of report.devices)
            if (at !== undefined) dispatch({ _tag: "InitialEnds", device, at });
        }
      }),
    ),
  );
  dispatch({ _tag: "Tick" });
  show();
  return { loading, dispatch, show };
});

/** As the loader of this host has agreed with the source. An agent that only starts or stops the devices of a session that is over takes in nothing. */
const openerOf = ({ runtimeDirectory }: Settings, { migration, epoch }: LoadOptions): Opener => {
  const path = destinationSealing(runtimeDirectory, migration, epoch);
  try {
    return makeOpener(readSealing(path), { migration, epoch, purpose: "devices" });
  } catch {
    return CLOSED;
  }
};
