/** What a migration does to its guest at the source, step by step; each answers with the event that its decisions wait for. */
import { rmSync } from "node:fs";
import { answering, asGodwitError, hostMicros, type Settings } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import { type Guest, type GuestWatch, openRegistered, type Registry, watchGuest } from "@godwit/guest";
import {
  addressExport,
  type DirtyTracker,
  deviceStateExport,
  digestFile,
  exportBlocks,
  exportSentPages,
  openRamReader,
  type RamBlock,
  type RamReader,
  withdrawExports,
} from "@godwit/memory";
import { fromError, GodwitError, OFFER_VERSION, type Offer, type OfferedDevice, toError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import { describeDevices, syncDirtyPages } from "./agent-requests.ts";
import type { Agreements } from "./agreements.ts";
import { chooseTracker, type LocalStep, type Source, type SourceEvent, slotsOf } from "./decisions/index.ts";
import { batchRuns } from "./run-batches.ts";

export interface GuestSteps {
  readonly take: (step: LocalStep, round: number) => Effect.Effect<SourceEvent, GodwitError>;
  /** Ends dirty tracking and takes the guest's memory away from the workers. */
  readonly closeTracker: Effect.Effect<void>;
  /** What workers read from, once the tracker is open. */
  readonly blocks: () => ReadonlyArray<RamBlock>;
  /** Open only for `zero-page-detection: legacy`. */
  readonly readers: () => ReadonlyArray<RamReader>;
}

/** `dispatch` gets the dirty runs while a sync goes on. The scope's end closes what is open. */
export const makeGuestSteps = Effect.fnUntraced(function* (
  source: Source,
  tools: { readonly settings: Settings; readonly registry: Registry; readonly agreements: Agreements },
  dispatch: (event: SourceEvent) => void,
): Effect.fn.Return<GuestSteps, never, Fabric | Scope.Scope> {
  const fabric = yield* Fabric;
  const { settings, registry, agreements } = tools;
  const scope = yield* Effect.scope;
  let guest: Guest | null = null;
  let watch: GuestWatch | null = null;
  let tracker: DirtyTracker | null = null;
  let trackerScope: Scope.Closeable | null = null;
  let readers: ReadonlyArray<RamReader> = [];
  /** What was prepared for the save of the device state; null: nothing. */
  let prepared: Scope.Closeable | null = null;

  const open: Effect.Effect<Guest, GodwitError> = Effect.suspend(() =>
    guest !== null
      ? Effect.succeed(guest)
      : openRegistered(registry, source.guest).pipe(
          Effect.tap((opened) => watchLife(opened.guest)),
          Effect.map((opened) => {
            guest = opened.guest;
            return opened.guest;
          }),
          Effect.provideService(Scope.Scope, scope),
        ),
  );
  const watchLife = Effect.fnUntraced(function* (opened: Guest) {
    const watching = yield* watchGuest(opened, { guest: source.guest, actor: "ram-sender", side: "source" });
    watch = watching;
    yield* Effect.forkScoped(
      Effect.gen(function* () {
        const error = yield* watching.ended;
        // Whoever has its name later was not stopped for this.
        yield* Effect.ignore(note("forget that the guest leaves", () => registry.settle(source.guest)));
        dispatch({ _tag: "GuestEnded", failure: fromError(error) });
      }),
    );
  });
  const withGuest = <A>(use: (guest: Guest) => Effect.Effect<A, GodwitError>): Effect.Effect<A, GodwitError> =>
    Effect.flatMap(open, use);
  const note = (step: string, write: () => void): Effect.Effect<void, GodwitError> =>
    Effect.try({ try: write, catch: asGodwitError("ram-sender", step) });

  const openTracker = (opened: Guest): Effect.Effect<SourceEvent, GodwitError> =>
    Effect.gen(function* () {
      const kind = chooseTracker(source.parameters["dirty-tracker"], source.offer);
      if (typeof kind !== "string") return yield* toError(kind);
      trackerScope = yield* Scope.fork(scope);
      const made = yield* opened.track(kind).pipe(Effect.provideService(Scope.Scope, trackerScope));
      tracker = made;
      yield* note("export the guest's memory to the workers", () => {
        exportBlocks(settings.runtimeDirectory, source.migration, source.epoch, made.readFrom);
        addressExport(settings.runtimeDirectory, "ram", source.migration, source.route.destination);
        if (source.capabilities.xbzrle)
          exportSentPages(settings.runtimeDirectory, source.migration, source.epoch, slotsOf(source));
        if (source.parameters["zero-page-detection"] === "legacy") readers = made.readFrom.map(openRamReader);
      });
      return { _tag: "TrackerOpened", kind: made.kind };
    });

  const closeTracker = Effect.suspend(() => {
    const opened = trackerScope;
    tracker = null;
    trackerScope = null;
    for (const reader of readers) reader.close();
    readers = [];
    withdrawExports(settings.runtimeDirectory, source.migration);
    return opened === null ? Effect.void : Scope.close(opened, Exit.void);
  });
  yield* Effect.addFinalizer(() => closeTracker);

  /** A guest without devices needs no VFIO agent. */
  const devices: Effect.Effect<ReadonlyArray<OfferedDevice>, GodwitError> = Effect.suspend(() =>
    (registry.find(source.guest)?.devices ?? []).length === 0
      ? Effect.succeed([])
      : Effect.provideService(describeDevices(source), Fabric, fabric),
  );
  const logsDma = (): boolean => source.offer?.devices?.some((device) => device["dirty-logging"]) === true;
  const dmaPages = (round: number, add: (block: number, firstPage: number, pages: number) => void) =>
    logsDma() ? Effect.provideService(syncDirtyPages(source, round, add), Fabric, fabric) : Effect.succeed(0);

  const sync = (round: number): Effect.Effect<SourceEvent, GodwitError> =>
    Effect.suspend(() => {
      if (tracker === null) return Effect.never;
      const batch = batchRuns(
        (block, runs) => dispatch({ _tag: "Found", round, block, runs }),
        source.phase._tag === "FinalSync" ? "each turn" : "at the end",
      );
      return tracker.sync(batch.add).pipe(
        Effect.mapError((cause) => syncFailed(cause.message)),
        Effect.flatMap((report) =>
          Effect.map(dmaPages(round, batch.add), (pages): SourceEvent => {
            batch.flush();
            return { _tag: "Synced", round, dirtyPages: report.dirtyPages + pages, syncMs: report.durationMs };
          }),
        ),
      );
    });

  /** While the guest still runs. In pre-switchover it would keep others from the guest for as long as the operator takes. */
  const prepareToSave = (opened: Guest): Effect.Effect<void, GodwitError> =>
    source.capabilities["pause-before-switchover"]
      ? Effect.void
      : Effect.gen(function* () {
          prepared ??= yield* Scope.fork(scope);
          yield* opened.prepareToSave.pipe(Effect.provideService(Scope.Scope, prepared));
        });
  const undoPreparation: Effect.Effect<void> = Effect.suspend(() => {
    const opened = prepared;
    prepared = null;
    return opened === null ? Effect.void : Scope.close(opened, Exit.void);
  });

  const saveDeviceState = (opened: Guest): Effect.Effect<SourceEvent, GodwitError> => {
    const path = deviceStateExport(settings.runtimeDirectory, source.migration, source.epoch);
    rmSync(path, { force: true });
    return Effect.flatMap(opened.saveDeviceState(path), (bytes) =>
      Effect.try({
        try: (): SourceEvent => ({ _tag: "DeviceStateSaved", bytes, digest: digestFile(path) }),
        catch: asGodwitError("ram-sender", "read the saved device state"),
      }),
    );
  };

  /** A builtin guest is gone with its process; a QEMU's monitor may be there again, for the way back. */
  const forget = (): void => {
    if (registry.find(source.guest)?.driver === "builtin") registry.remove(source.guest);
    else registry.settle(source.guest);
  };

  const take = (step: LocalStep, round: number): Effect.Effect<SourceEvent, GodwitError> => {
    switch (step) {
      case "describe":
        return Effect.andThen(
          agreements.mayLeave(source),
          withGuest((opened) =>
            Effect.flatMap(opened.describe, (description) =>
              Effect.flatMap(devices, (offered) => described(description, offered, fabric.maxPayloadBytes)),
            ),
          ),
        );
      case "open-tracker":
        // Before anything that workers could send.
        return Effect.andThen(
          note("tell the workers how packets are sealed", () => agreements.tellWorkers(source)),
          withGuest(openTracker),
        );
      case "sync":
        return sync(round);
      case "pause":
        // Noted first: a successor that finds the guest stopped must know that it was for this.
        return note("note that the guest leaves", () => registry.mark(source.guest, "leaving")).pipe(
          Effect.andThen(
            withGuest((opened) =>
              Effect.andThen(
                prepareToSave(opened),
                Effect.suspend((): Effect.Effect<SourceEvent, GodwitError> => {
                  const since = hostMicros();
                  return Effect.as(opened.pause, { _tag: "Paused", since });
                }),
              ),
            ),
          ),
        );
      case "save-device-state":
        // The guest may be let go on with, or thrown away, meanwhile: what is undone is said before either.
        return Effect.ensuring(
          withGuest(saveDeviceState),
          Effect.forkIn(undoPreparation, scope, { startImmediately: true }),
        );
      case "resume":
        return undoPreparation.pipe(
          Effect.andThen(withGuest((opened) => opened.resume)),
          Effect.andThen(note("note that the guest stays", () => registry.settle(source.guest))),
          Effect.as({ _tag: "Resumed" }),
        );
      case "serve":
        // The tracker's own copy, if it has one, goes with it: from now on the memory itself is read, which does not change any more.
        return closeTracker.pipe(
          Effect.andThen(withGuest((opened) => opened.describe)),
          Effect.flatMap(({ blocks }) =>
            note("export the guest's memory to the workers", () => {
              exportBlocks(settings.runtimeDirectory, source.migration, source.epoch, blocks);
              addressExport(settings.runtimeDirectory, "ram", source.migration, source.route.destination);
            }),
          ),
          Effect.as({ _tag: "Served" }),
        );
      case "discard":
        return withGuest((opened) => opened.discard).pipe(
          Effect.andThen(note("forget the guest", forget)),
          Effect.as({ _tag: "Discarded" }),
        );
    }
  };
  const explained: GuestSteps["take"] = (step, round) =>
    Effect.catch(answering("ram-sender", step)(Effect.suspend(() => take(step, round))), (error) => {
      const failed = Effect.fail(error);
      return watch === null ? failed : watch.explain(failed);
    });
  return { take: explained, closeTracker, blocks: () => tracker?.readFrom ?? [], readers: () => readers };
});

const syncFailed = (reason: string): GodwitError =>
  new GodwitError({
    code: "tracker-failed",
    actor: "ram-sender",
    side: "source",
    step: "sync the dirty bitmap",
    reason,
  });

const described = (
  description: Effect.Success<Guest["describe"]>,
  devices: ReadonlyArray<OfferedDevice>,
  maxPayloadBytes: number,
): Effect.Effect<SourceEvent, GodwitError> => {
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
  if (description.pagesMissing === true)
    return Effect.fail(
      new GodwitError({
        code: "migration-in-progress",
        actor: "ram-sender",
        side: "source",
        step: "describe the guest",
        reason: `pages of guest ${description.name} are still on their way to it; it can be moved once they are there`,
      }),
    );
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
      ...(block.fileOffset === 0 ? {} : { "file-offset": block.fileOffset }),
    })),
    ...(devices.length === 0 ? {} : { devices }),
    "max-payload": maxPayloadBytes,
  };
  return Effect.succeed({ _tag: "Described", offer, running: runState === "running" });
};
