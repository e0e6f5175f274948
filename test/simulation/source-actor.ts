/** A RAM sender on the simulated network: the real decisions, a model of the guest beneath. */
import { type OwnershipEntry, PACKET_PAGES_MAX, type SourceCommand, subjects } from "@godwit/protocol";
import * as Source from "@godwit/ram-sender/decisions";
import { resumeSource, SLICE_BYTES, SLICES, saveDeviceState } from "./guest-model.ts";
import { missingAnswer, SENDER as NAME, NODE_A, NODE_B, PAGE_BYTES, WORKERS } from "./names.ts";
import { readOwnership, writeOwnership } from "./ownership-register.ts";
import { between } from "./random-times.ts";
import type { Scene } from "./scene.ts";

/** A stale answer at the start must not decide: the record is looked at so often, this far apart, ms. */
/** How soon the end of a guest's process is noticed, ms. */
const WATCH_MS = 1;
const RECOVERY_LOOKS = 6;
const RECOVERY_LOOK_MS = 300;
const SERVE_LOOK_MS = 1000;

export const bootSource = (scenes: ReadonlyArray<Scene>, incarnation: string): void => {
  const sender: Source.Sender = {
    node: NODE_A,
    incarnation,
    itemPagesMax: PACKET_PAGES_MAX,
    sources: new Map(),
    saving: new Set(),
    recovering: new Set(),
  };
  const { network } = scenes[0]!;
  const takers = new Map(scenes.map((scene) => [scene.migration, bootGuest(scene, sender)]));
  network.subscribe(NAME, subjects.source(NODE_A), (payload) => {
    const command = payload as SourceCommand;
    takers.get(command.migration)!(command);
  });
};

/** Returns what takes the commands about this guest. */
const bootGuest = (scene: Scene, sender: Source.Sender): ((command: SourceCommand) => void) => {
  const { network, guest, broken, name } = scene;
  const { incarnation } = sender;
  const own = (): ReadonlyArray<Source.Source> =>
    [...sender.sources.values()].filter((source) => source.guest === name);
  const local = (delayMs: number, what: () => void, done: () => void): void => {
    // The guest is another process: what it was asked to do happens even when the asker has died.
    network.after(delayMs, what);
    network.timer(NAME, delayMs + 0.2, done);
  };
  const recoverAfterStart = (looks: number): void => {
    sender.recovering.add(name);
    readOwnership(network, NAME, name, looks === RECOVERY_LOOKS ? 0 : RECOVERY_LOOK_MS, (entry) => {
      if (entry === "Unknown") return recoverAfterStart(looks);
      const recovery = Source.recover(entry, NODE_A, `${incarnation}-recovery-${looks}-${network.now()}`);
      if (recovery._tag === "TakeBack") return takeBack(recovery);
      // What is served is the guest's memory itself: nothing to do but to look again.
      if (recovery._tag === "Serve") {
        const again = (): void => {
          network.timer(NAME, SERVE_LOOK_MS, () => recoverAfterStart(RECOVERY_LOOKS));
        };
        if (!guest.sourceEnded) return again();
        const record = { ...recovery.record, op: `${incarnation}-lost-${network.now()}`, lost: "it has ended" };
        const { revision } = recovery;
        return writeOwnership(network, NAME, name, { record, revision, afterMs: 0 }, again);
      }
      if (recovery._tag === "Discard" && !guest.sourceRuns && !guest.sourceDiscarded) return discard(recovery);
      if (looks > 1 && !guest.sourceRuns && !guest.sourceDiscarded) return recoverAfterStart(looks - 1);
      sender.recovering.delete(name);
    });
  };
  const takeBack = (recovery: Extract<Source.Recovery, { _tag: "TakeBack" }>): void =>
    writeOwnership(network, NAME, name, { ...recovery, afterMs: 0 }, (outcome) => {
      if (outcome === "Unknown") return takeBack(recovery);
      if (outcome !== "Lost") return resumed(recovery, outcome.revision);
      readOwnership(network, NAME, name, 0, (entry) => {
        if (entry !== null && entry !== "Unknown" && entry.record.op === recovery.record.op)
          return resumed(recovery, entry.revision);
        recoverAfterStart(RECOVERY_LOOKS);
      });
    });
  const discard = (recovery: Extract<Source.Recovery, { _tag: "Discard" }>): void =>
    writeOwnership(network, NAME, name, { ...recovery, afterMs: 0 }, (outcome) => {
      // Unknown or lost: nothing is proven, look again.
      if (outcome === "Unknown" || outcome === "Lost") return recoverAfterStart(RECOVERY_LOOKS);
      local(
        between(network, 0.1, 2),
        () => {
          guest.sourceDiscarded = true;
        },
        () => sender.recovering.delete(name),
      );
    });
  const resumed = (recovery: Extract<Source.Recovery, { _tag: "TakeBack" }>, revision: number): void => {
    const close = (): void =>
      writeOwnership(
        network,
        NAME,
        name,
        { record: Source.settled(recovery.record, `${recovery.record.op}-settled`), revision, afterMs: 0 },
        () => sender.recovering.delete(name),
      );
    if (!recovery.resume || guest.sourceRuns) return close();
    local(between(network, 0.1, 2), () => resumeSource(guest), close);
  };

  const step = (source: Source.Source, event: Source.SourceEvent): void => {
    if (!sender.sources.has(source.migration) && event._tag !== "Tick") return;
    for (const effect of Source.step(source, event, network.now())) perform(source, effect);
    scene.saw("source", source.phase._tag);
  };

  const wakes = new Map<Source.Source, number>();
  const wake = (source: Source.Source, at: number): void => {
    const planned = wakes.get(source);
    if (planned !== undefined && planned <= at) return;
    wakes.set(source, at);
    network.timer(NAME, at - network.now(), () => {
      if (wakes.get(source) !== at) return;
      wakes.delete(source);
      step(source, { _tag: "Tick" });
    });
  };

  const perform = (source: Source.Source, effect: Source.SourceEffect): void => {
    switch (effect._tag) {
      case "Local":
        return performLocal(source, effect.step, effect.round);
      case "CloseTracker":
        return;
      case "ReadRecord":
        return readOwnership(network, NAME, name, effect.afterMs, (entry) =>
          step(source, { _tag: "RecordRead", op: effect.op, entry: asBroken(entry) }),
        );
      case "WriteRecord":
        return writeOwnership(network, NAME, name, effect, (outcome) => {
          if (outcome === "Unknown" && effect.record.state === "switching") {
            if (broken.has("a lost reply is taken for a no")) resumeSource(guest);
            if (broken.has("an unknown answer is taken for a yes")) outcome = { revision: effect.revision };
          }
          step(source, { _tag: "RecordWritten", op: effect.record.op, outcome });
        });
      case "Dispatch":
        return network.send(NAME, subjects.work(NODE_A, effect.worker, NODE_B), {
          migration: source.migration,
          epoch: source.epoch,
          round: source.ledger.round,
          item: effect.item.item,
          work: effect.item.work,
          channel: effect.channel,
          channelEpoch: effect.channelEpoch,
          saved: guest.saved,
          xbzrle: effect.xbzrle,
        });
      case "TellLoader":
        return network.send(NAME, subjects.switching(source.route), { epoch: source.epoch });
      case "Report":
        return network.send(NAME, subjects.sourceReport(source.route), Source.reportOf(source, network.now()));
      case "WakeAt":
        return wake(source, effect.at);
    }
  };

  /** A source that takes the commit for the end throws away what is nowhere else. */
  const asBroken = (entry: OwnershipEntry | null | "Unknown"): OwnershipEntry | null | "Unknown" => {
    if (!broken.has("a postcopy's source lets go at the commit")) return entry;
    if (entry === null || entry === "Unknown" || entry.record.state !== "destination") return entry;
    const { postcopy: _, ...record } = entry.record;
    return { ...entry, record };
  };

  const performLocal = (source: Source.Source, localStep: Source.LocalStep, round: number): void => {
    const took = between(network, 0.1, 3);
    const isGone = guest.sourceEnded && localStep !== "discard";
    const isShaky = localStep !== "resume" && localStep !== "serve" && localStep !== "discard";
    const fails = (network.random() < network.faults.dropRate / 10 && isShaky) || isGone;
    if (fails) {
      const failure = { code: "guest-failed", actor: "ram-sender", step: localStep, reason: "simulated" } as const;
      network.timer(NAME, took, () => step(source, { _tag: "LocalFailed", step: localStep, failure }));
      return;
    }
    switch (localStep) {
      case "describe":
        return local(
          took,
          () => {},
          () =>
            step(source, {
              _tag: "Described",
              running: guest.sourceRuns,
              offer: {
                version: 1,
                driver: "builtin",
                machine: "model",
                hypervisor: "1",
                running: guest.sourceRuns,
                blocks: [{ name: "ram0", "length-bytes": guest.source.length * PAGE_BYTES, "page-size": PAGE_BYTES }],
              },
            }),
        );
      case "open-tracker":
        return local(
          took,
          () => {
            for (let p = 0; p < guest.source.length; p++) guest.dirty.add(p);
          },
          () =>
            step(source, {
              _tag: "TrackerOpened",
              kind:
                guest.shadow === null || broken.has("owed pages go while the last sync goes on") ? "model" : "content",
            }),
        );
      case "sync": {
        // Half of memory after the other: what was found in the first is on its way while the second is looked at.
        const scan = (half: number, then: (dirtyPages: number) => void): void => {
          let found: number[] = [];
          const clear = (): void => {
            for (const page of found) guest.dirty.delete(page);
          };
          local(
            took / 2,
            () => {
              found = [...guest.dirty].filter((page) => (page < guest.source.length / 2 ? 0 : 1) === half);
              for (const page of found) guest.shadow?.set([guest.source[page]!], page);
              if (!broken.has("clear the dirty bitmap late")) clear();
            },
            () => {
              if (broken.has("clear the dirty bitmap late")) clear();
              for (const page of found) step(source, { _tag: "Found", round, block: 0, runs: [page, 1] });
              then(found.length);
            },
          );
        };
        return scan(0, (first) =>
          scan(1, (second) => step(source, { _tag: "Synced", round, dirtyPages: first + second, syncMs: took })),
        );
      }
      case "pause":
        if (broken.has("resume by a timer"))
          network.after(source.parameters["switchover-deadline"], () => {
            if (!guest.sourceDiscarded) resumeSource(guest);
          });
        return local(
          took,
          () => {
            guest.sourceRuns = false;
          },
          () => step(source, { _tag: "Paused" }),
        );
      case "save-device-state": {
        let digest = 0;
        return local(
          took,
          () => {
            digest = saveDeviceState(guest);
          },
          () => step(source, { _tag: "DeviceStateSaved", bytes: SLICES * SLICE_BYTES, digest }),
        );
      }
      case "resume":
        return local(
          took,
          () => resumeSource(guest),
          () => step(source, { _tag: "Resumed" }),
        );
      case "serve":
        return local(
          took,
          () => {},
          () => step(source, { _tag: "Served" }),
        );
      case "discard":
        return local(
          took,
          () => {
            guest.sourceDiscarded = true;
          },
          () => step(source, { _tag: "Discarded" }),
        );
    }
  };

  const listen = (source: Source.Source): void => {
    for (const worker of WORKERS) if (network.life(worker) > 0) step(source, { _tag: "WorkerUp", worker });
    network.subscribe(NAME, subjects.acknowledgement(source.route), (payload) =>
      step(source, payload as Source.SourceEvent),
    );
    network.subscribe(NAME, subjects.destinationReport(source.route), (payload) => {
      const report = payload as { phase: string; epoch: number; incarnation: string; life: number; failure?: never };
      const { epoch, incarnation, life } = report;
      if (report.phase === "ready" && life > 0) step(source, { _tag: "DestinationResumed", epoch, incarnation, life });
      if (report.phase === "running" || report.phase === "postcopy")
        step(source, { _tag: "DestinationRunning", epoch: report.epoch, incarnation: report.incarnation });
      if (report.phase === "failed") {
        step(source, {
          _tag: "DestinationFailed",
          epoch: report.epoch,
          incarnation: report.incarnation,
          failure: report.failure ?? ({ code: "internal", actor: "loader", step: "?", reason: "none" } as never),
        });
      }
    });
  };
  network.subscribe(NAME, subjects.missingPages(NODE_A, NODE_B), (payload) => {
    const { migration, epoch } = payload as { migration: string; epoch: number };
    const source = sender.sources.get(migration);
    if (migration !== scene.migration) return;
    if (source?.epoch !== epoch || source.missing === null) return;
    const bitmaps = source.missing.map(({ words, pageCount }) => ({ words: words.slice(), pageCount }));
    network.send(NAME, missingAnswer(migration), { epoch, bitmaps });
  });
  network.subscribe(NAME, "supervisor.worker", (payload) => {
    const event = payload as { worker: string; up: boolean };
    for (const source of own()) step(source, { _tag: event.up ? "WorkerUp" : "WorkerDown", worker: event.worker });
  });
  scene.sourceEnded = () =>
    network.timer(NAME, WATCH_MS, () => {
      const failure = { code: "guest-failed", actor: "ram-sender", step: "watch", reason: "it has ended" } as const;
      for (const source of own()) step(source, { _tag: "GuestEnded", failure });
    });
  network.onLink(NAME, (connected) => {
    if (connected) for (const source of own()) step(source, { _tag: "LinkRestored" });
  });
  recoverAfterStart(RECOVERY_LOOKS);
  return (command) => {
    const routed = Source.route(sender, command, network.now());
    switch (routed._tag) {
      case "Begin":
        listen(routed.source);
        for (const effect of Source.begin) perform(routed.source, effect);
        return;
      case "Step":
        return step(routed.source, routed.event);
      case "Show":
        return perform(routed.source, { _tag: "Report" });
      case "Answer":
        return network.send(NAME, subjects.sourceReport(command), routed.report);
      case "Ignore":
      case "Refuse":
        return;
    }
  };
};
