/** One migration of this host's sender: feeds its decisions with events and carries out what they want. */

import { rmSync } from "node:fs";
import { asGodwitError, makeAlarm, makeEventLoop, type OwnershipRegister, type Settings } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import { type Guest, openRegistered, type Registry } from "@godwit/guest";
import {
  type DirtyTracker,
  deviceStateExport,
  exportBlocks,
  openRamReader,
  type RamBlock,
  type RamReader,
  withdrawExports,
} from "@godwit/memory";
import {
  DestinationReport,
  decodeAcknowledgement,
  fromError,
  GodwitError,
  isMalformed,
  json,
  OFFER_VERSION,
  type Offer,
  PACKET_PAGES_MAX,
  SourceReport,
  Switching,
  subjects,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import {
  begin,
  type LocalStep,
  reportOf,
  type Source,
  type SourceEffect,
  type SourceEvent,
  step,
} from "./decisions/index.ts";
import { workItem } from "./dispatch.ts";

/** Acknowledgements that may wait: one for each item that windows allow in flight, if every item held one page. */
const WAITING_ACKNOWLEDGEMENTS_MAX = 16_384;
/** Reports of the destination that may wait. */
const WAITING_REPORTS_MAX = 64;

const sourceReport = json(SourceReport);
const destinationReport = json(DestinationReport);
const switching = json(Switching);

export interface Session {
  readonly source: Source;
  readonly dispatch: (event: SourceEvent) => void;
  readonly show: () => void;
}

export interface SessionTools {
  readonly settings: Settings;
  readonly register: OwnershipRegister;
  readonly registry: Registry;
}

/** Starts the session; it works until the scope ends. */
export const startSession = Effect.fnUntraced(function* (
  source: Source,
  tools: SessionTools,
): Effect.fn.Return<Session, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const { settings, register, registry } = tools;
  const scope = yield* Effect.scope;
  const run = Effect.runForkWith(yield* Effect.context<Fabric>());
  /** Forks work that ends with the session. */
  const fork = (work: Effect.Effect<unknown>): void => void run(Effect.forkIn(work, scope));

  let guest: Guest | null = null;
  let tracker: { readonly tracker: DirtyTracker; readonly scope: Scope.Closeable } | null = null;
  let trackerScope: Scope.Closeable | null = null;
  let blocks: ReadonlyArray<RamBlock> = [];
  let readers: ReadonlyArray<RamReader> = [];

  const dispatch = makeEventLoop<SourceEvent>((event) => {
    for (const effect of step(source, event, Date.now())) perform(effect);
  });
  const alarm = makeAlarm(() => dispatch({ _tag: "Tick" }));
  yield* Effect.addFinalizer(() => Effect.sync(alarm.stop));

  const perform = (effect: SourceEffect): void => {
    switch (effect._tag) {
      case "Local":
        return local(effect.step, effect.round);
      case "CloseTracker":
        return closeTracker();
      case "ReadRecord":
        return fork(
          register.read(source.guest).pipe(
            Effect.delay(effect.afterMs),
            Effect.map((entry) => dispatch({ _tag: "RecordRead", op: effect.op, entry })),
          ),
        );
      case "WriteRecord":
        return fork(
          register.write(source.guest, effect.record, effect.revision).pipe(
            Effect.delay(effect.afterMs),
            Effect.map((outcome) => dispatch({ _tag: "RecordWritten", op: effect.record.op, outcome })),
          ),
        );
      case "Dispatch":
        return handOut(effect);
      case "TellLoader":
        fabric.publish(
          subjects.switching(source.migration),
          switching.encode({ migration: source.migration as never, epoch: source.epoch as never }),
        );
        return;
      case "Report":
        return show();
      case "WakeAt":
        return alarm.wakeAt(effect.at);
    }
  };

  const show = (): void =>
    void fabric.publish(subjects.sourceReport(source.migration), sourceReport.encode(reportOf(source, Date.now())));

  const handOut = (effect: Extract<SourceEffect, { _tag: "Dispatch" }>): void => {
    try {
      fabric.publish(subjects.work(source.node, effect.worker), workItem(source, effect, blocks, readers, Date.now()));
    } catch (error) {
      const failure = fromError(asGodwitError("ram-sender", "look for zero pages")(error));
      dispatch({ _tag: "LocalFailed", step: "sync", failure: { ...failure, code: "guest-failed" } });
    }
  };

  const local = (localStep: LocalStep, round: number): void =>
    fork(
      Effect.matchEager(localWork(localStep, round), {
        onSuccess: dispatch,
        onFailure: (error) =>
          dispatch({ _tag: "LocalFailed", step: localStep, failure: { ...fromError(error), side: "source" } }),
      }),
    );

  const withGuest = <A>(use: (guest: Guest) => Effect.Effect<A, GodwitError>): Effect.Effect<A, GodwitError> =>
    Effect.suspend(() => (guest === null ? openHere().pipe(Effect.flatMap(use)) : use(guest)));
  const openHere = () =>
    openRegistered(registry, source.guest).pipe(
      Effect.map((opened) => {
        guest = opened.guest;
        return opened.guest;
      }),
      Effect.provideService(Scope.Scope, scope),
    );

  const localWork = (localStep: LocalStep, round: number): Effect.Effect<SourceEvent, GodwitError> => {
    switch (localStep) {
      case "describe":
        return withGuest((opened) => Effect.flatMap(opened.describe, described));
      case "open-tracker":
        return withGuest(openTracker);
      case "sync":
        return sync(round);
      case "pause":
        // Noted first: a successor that finds the guest stopped must know that it was for this.
        return Effect.andThen(
          noted("leaving"),
          withGuest((opened) => opened.pause),
        ).pipe(Effect.as({ _tag: "Paused" }));
      case "save-device-state":
        return saveDeviceState;
      case "resume":
        return Effect.andThen(
          withGuest((opened) => opened.resume),
          noted("settled"),
        ).pipe(Effect.as({ _tag: "Resumed" }));
      case "discard":
        return withGuest((opened) => opened.discard).pipe(
          Effect.tap(() => Effect.sync(() => registry.remove(source.guest))),
          Effect.as({ _tag: "Discarded" }),
        );
    }
  };

  const noted = (what: "leaving" | "settled"): Effect.Effect<void, GodwitError> =>
    Effect.try({
      try: () => (what === "leaving" ? registry.mark(source.guest, what) : registry.settle(source.guest)),
      catch: asGodwitError("ram-sender", "note in the guest registry"),
    });

  const openTracker = (opened: Guest): Effect.Effect<SourceEvent, GodwitError> =>
    Effect.gen(function* () {
      trackerScope = yield* Scope.fork(scope);
      const made = yield* opened
        .track(source.parameters["dirty-tracker"])
        .pipe(Effect.provideService(Scope.Scope, trackerScope));
      tracker = { tracker: made, scope: trackerScope };
      blocks = made.readFrom;
      yield* Effect.try({
        try: () => {
          exportBlocks(settings.runtimeDirectory, source.migration, source.epoch, blocks);
          if (source.parameters["zero-page-detection"] === "legacy") readers = blocks.map(openRamReader);
        },
        catch: asGodwitError("ram-sender", "export the guest's memory to the workers"),
      });
      return { _tag: "TrackerOpened", kind: made.kind };
    });

  const closeTracker = (): void => {
    const open = trackerScope;
    tracker = null;
    trackerScope = null;
    for (const reader of readers) reader.close();
    readers = [];
    withdrawExports(settings.runtimeDirectory, source.migration);
    if (open !== null) fork(Scope.close(open, Exit.void));
  };

  const sync = (round: number): Effect.Effect<SourceEvent, GodwitError> =>
    Effect.suspend(() => {
      if (tracker === null) return Effect.never;
      const batch = batchRuns((block, runs) => dispatch({ _tag: "Found", round, block, runs }));
      return tracker.tracker.sync(batch.add).pipe(
        Effect.tap(() => Effect.sync(batch.flush)),
        Effect.map(
          (report): SourceEvent => ({
            _tag: "Synced",
            round,
            dirtyPages: report.dirtyPages,
            syncMs: report.durationMs,
          }),
        ),
        Effect.mapError(
          (cause) =>
            new GodwitError({
              code: "tracker-failed",
              actor: "ram-sender",
              side: "source",
              step: "sync the dirty bitmap",
              reason: cause.message,
            }),
        ),
      );
    });

  const saveDeviceState: Effect.Effect<SourceEvent, GodwitError> = Effect.suspend(() => {
    const path = deviceStateExport(settings.runtimeDirectory, source.migration, source.epoch);
    rmSync(path, { force: true });
    return withGuest((opened) => opened.saveDeviceState(path));
  }).pipe(Effect.map((bytes): SourceEvent => ({ _tag: "DeviceStateSaved", bytes })));

  yield* listen(source, dispatch);
  for (const effect of begin) perform(effect);
  return { source, dispatch, show };
});

/** Runs that make one event: scattered ones by the hundred, so that each costs a bit and no step of its own, */
const BATCH_RUNS = 256;
/** but no more pages than some packets hold, so that sending starts while the scan goes on. */
const BATCH_PAGES = 8 * PACKET_PAGES_MAX;

/** Gathers runs of one block until there are enough of them. `flush` hands out the rest. */
const batchRuns = (out: (block: number, runs: ReadonlyArray<number>) => void) => {
  let block = 0;
  let runs: number[] = [];
  let pages = 0;
  const flush = (): void => {
    if (runs.length > 0) out(block, runs);
    runs = [];
    pages = 0;
  };
  const add = (ofBlock: number, firstPage: number, count: number): void => {
    if (ofBlock !== block) flush();
    block = ofBlock;
    runs.push(firstPage, count);
    pages += count;
    if (runs.length >= 2 * BATCH_RUNS || pages >= BATCH_PAGES) flush();
  };
  return { add, flush };
};

const described = (description: Effect.Success<Guest["describe"]>): Effect.Effect<SourceEvent, GodwitError> => {
  const { runState } = description;
  if (runState !== "running" && runState !== "paused") {
    const reason = `guest ${description.name} is ${runState}; only a running or a paused guest can be moved`;
    return Effect.fail(
      new GodwitError({
        code: "guest-not-movable",
        actor: "ram-sender",
        side: "source",
        step: "describe the guest",
        reason,
      }),
    );
  }
  const offer: Offer = {
    version: OFFER_VERSION,
    driver: description.driver,
    machine: description.machine,
    hypervisor: description.version,
    running: runState === "running",
    blocks: description.blocks.map((block) => ({
      name: block.name,
      "length-bytes": block.lengthBytes,
      "page-size": block.hostPageBytes,
    })),
  };
  return Effect.succeed({ _tag: "Described", offer, running: runState === "running" });
};

/** Acknowledgements and the destination's reports become events. What is malformed is dropped: its item is late, and goes again. */
const listen = Effect.fnUntraced(function* (source: Source, dispatch: (event: SourceEvent) => void) {
  const fabric = yield* Fabric;
  const acknowledgements = yield* Effect.orDie(
    fabric.subscribe(subjects.acknowledgement(source.migration), { capacity: WAITING_ACKNOWLEDGEMENTS_MAX }),
  );
  const reports = yield* Effect.orDie(
    fabric.subscribe(subjects.destinationReport(source.migration), { capacity: WAITING_REPORTS_MAX }),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(acknowledgements.takeAll, (messages) => {
        for (const message of messages) {
          const ack = decodeAcknowledgement(message.data);
          if (ack.kind === "malformed" || ack.migration !== source.migration) continue;
          dispatch({ ...ack, _tag: ack.kind === "applied" ? "Applied" : "Refused" });
        }
      }),
    ),
  );
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(reports.takeAll, (messages) => {
        for (const message of messages) {
          const report = destinationReport.decode(message.data);
          if (isMalformed(report) || report.migration !== source.migration) continue;
          const { epoch, incarnation, phase, failure } = report;
          if (phase === "running") dispatch({ _tag: "DestinationRunning", epoch, incarnation });
          if (phase === "failed" && failure !== undefined)
            dispatch({ _tag: "DestinationFailed", epoch, incarnation, failure });
        }
      }),
    ),
  );
});
