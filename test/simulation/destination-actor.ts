/** A destination loader on the simulated network: the real decisions, a model of the incoming guest beneath. */
import * as Loader from "@godwit/loader/decisions";
import * as Bitmap from "@godwit/memory/bitmap";
import {
  type DestinationCommand,
  digestOfBitmaps,
  NO_XBZRLE,
  type OwnershipEntry,
  PACKET_PAGES_MAX,
  POSTCOPY_ROUND,
  subjects,
} from "@godwit/protocol";
import type { Breakage } from "./breakage.ts";
import {
  arrivedDeviceState,
  checkStart,
  digestOf,
  expectPages,
  type GuestModel,
  placePage,
  prepareIncoming,
  Violation,
} from "./guest-model.ts";
import { missingAnswer, LOADER as NAME, NODE_A, NODE_B, WORKERS } from "./names.ts";
import { readOwnership, writeOwnership } from "./ownership-register.ts";
import { between } from "./random-times.ts";
import type { Scene } from "./scene.ts";
import type { SimPacket } from "./worker-actor.ts";

/** How soon the end of a guest's process is noticed, ms. */
const WATCH_MS = 1;
const RECOVERY_LOOKS = 6;
const RECOVERY_LOOK_MS = 300;
/** A write of the dead may land seconds after its author's successor has looked. */
const RECOVERY_SLOW_LOOK_MS = 2000;

export const bootDestination = (scenes: ReadonlyArray<Scene>, incarnation: string): void => {
  const loader: Loader.Loader = {
    node: NODE_B,
    incarnation,
    destinations: new Map(),
    discarding: new Set(),
    restoring: new Set(),
  };
  const { network } = scenes[0]!;
  const takers = new Map(scenes.map((scene) => [scene.migration, bootGuest(scene, loader)]));
  network.subscribe(NAME, subjects.destination(NODE_B), (payload) => {
    const command = payload as DestinationCommand;
    takers.get(command.migration)!(command);
  });
};

/** Returns what takes the commands about this guest. */
const bootGuest = (scene: Scene, loader: Loader.Loader): ((command: DestinationCommand) => void) => {
  const { network, guest, broken, name } = scene;
  const { incarnation } = loader;

  const runGuest = (): void => {
    // One that has failed goes no further, whoever asks it to.
    if (guest.destinationRuns || guest.lost) return;
    checkStart(guest);
    guest.destinationRuns = true;
    guest.starts++;
  };
  const local = (delayMs: number, what: () => void, done: () => void): void => {
    network.after(delayMs, what);
    network.timer(NAME, delayMs + 0.2, done);
  };
  const recoverAfterStart = (looks: number): void =>
    readOwnership(
      network,
      NAME,
      name,
      looks === RECOVERY_LOOKS ? 0 : looks > 1 ? RECOVERY_LOOK_MS : RECOVERY_SLOW_LOOK_MS,
      (entry) => {
        if (!Loader.isIdle(loader, name)) return;
        if (entry === "Unknown") return recoverAfterStart(looks);
        const op = `${incarnation}-recovery-${network.now()}`;
        const recovery = Loader.recover(entry, NODE_B, op, {
          arriving: false,
          epoch: 0,
          running: guest.destinationRuns,
          pagesMissing: guest.listening,
        });
        if (recovery._tag === "Start") {
          writeOwnership(network, NAME, name, { ...recovery, afterMs: 0 }, (outcome) => {
            if (typeof outcome !== "object") return recoverAfterStart(looks);
            const { closed: record } = recovery;
            local(between(network, 0.1, 2), runGuest, () =>
              writeOwnership(network, NAME, name, { record, revision: outcome.revision, afterMs: 0 }, () => {}),
            );
          });
          return;
        }
        if (!guest.destinationRuns || recovery._tag === "Later") recoverAfterStart(Math.max(1, looks - 1));
      },
    );

  const step = (destination: Loader.Destination, event: Loader.DestinationEvent): void => {
    for (const effect of Loader.step(destination, event, network.now())) perform(destination, effect);
    scene.saw("destination", destination.phase._tag);
    if (Loader.isOver(destination)) forget(destination);
  };
  /** The session is over: nobody goes on with its file. */
  const forget = (destination: Loader.Destination): void => {
    if (scene.kept?.epoch === destination.epoch) scene.kept = null;
  };
  const wakes = new Map<Loader.Destination, number>();
  const wake = (destination: Loader.Destination, at: number): void => {
    const planned = wakes.get(destination);
    if (planned !== undefined && planned <= at) return;
    wakes.set(destination, at);
    network.timer(NAME, at - network.now(), () => {
      if (wakes.get(destination) !== at) return;
      wakes.delete(destination);
      step(destination, { _tag: "Tick" });
    });
  };
  const report = (destination: Loader.Destination): void =>
    network.send(NAME, subjects.destinationReport(destination.route), Loader.reportOf(destination));

  const perform = (destination: Loader.Destination, effect: Loader.DestinationEffect): void => {
    switch (effect._tag) {
      case "Local":
        return performLocal(destination, effect.step);
      case "ReadRecord":
        return readOwnership(network, NAME, name, effect.afterMs, (entry) =>
          step(destination, { _tag: "RecordRead", op: effect.op, entry: asBroken(entry) }),
        );
      case "WriteRecord":
        if (broken.has("start without compare-and-set")) runGuest();
        return writeOwnership(network, NAME, name, effect, (outcome) =>
          step(destination, { _tag: "RecordWritten", op: effect.record.op, outcome }),
        );
      case "AskMissing":
        return network.send(NAME, subjects.missingPages(NODE_A, NODE_B), {
          migration: destination.migration,
          epoch: destination.epoch,
        });
      case "Fetch":
        if (fetchings.has(destination)) return;
        return void fetchings.set(destination, startFetching(destination));
      case "SayToFetching":
        return fetchings.get(destination)?.({ _tag: effect.word });
      case "Report":
        return report(destination);
      case "WakeAt":
        return wake(destination, effect.at);
    }
  };
  const asBroken = (entry: OwnershipEntry | null | "Unknown"): OwnershipEntry | null | "Unknown" => {
    if (!broken.has("a destination goes on waiting for pages that were given up")) return entry;
    if (entry === null || entry === "Unknown" || entry.record.state !== "destination") return entry;
    const { lost: _, givenUp: __, ...record } = entry.record;
    return { ...entry, record };
  };
  /** What is discarded gets no pages any more: its memory may be another attempt's. */
  const isDiscarded = ({ phase }: Loader.Destination): boolean =>
    phase._tag === "Discarding" || phase._tag === "Failed";
  const fetchings = new Map<Loader.Destination, (event: Loader.PostcopyEvent) => void>();
  const answers = new Map<Loader.Destination, ReadonlyArray<Bitmap.Bitmap>>();
  /** Asks for what the guest's memory lacks; all that is known of a former life's requests is in the memory. */
  const startFetching = (destination: Loader.Destination): ((event: Loader.PostcopyEvent) => void) => {
    const missing = Bitmap.make(guest.destination.length);
    for (const page of guest.missing) Bitmap.setRange(missing, page, 1);
    const postcopy = Loader.makePostcopy({
      blocks: [{ pages: guest.destination.length, hostPages: 1 }],
      missing: [missing],
      itemPagesMax: PACKET_PAGES_MAX,
      channels: 3,
      // So slow that faults find it under way.
      bytesPerSecond: 400 * 4096,
      preempt: true,
      prefetch: true,
      autoRecover: true,
      now: network.now(),
    });
    const { migration, epoch } = destination;
    let wakeAt = Number.POSITIVE_INFINITY;
    const say = (event: Loader.PostcopyEvent): void => {
      if (isDiscarded(destination)) return;
      for (const effect of Loader.stepPostcopy(postcopy, event, network.now())) {
        if (effect._tag === "Ask") {
          const { item, channel, channelEpoch, worker } = effect;
          const { work, item: number } = item;
          const asked = {
            migration,
            epoch,
            round: POSTCOPY_ROUND,
            item: number,
            work,
            channel,
            channelEpoch,
            saved: null,
            xbzrle: null,
          };
          network.send(NAME, subjects.work(NODE_A, worker, NODE_B), asked);
        }
        if (effect._tag === "WakeAt" && effect.at < wakeAt) {
          wakeAt = effect.at;
          network.timer(NAME, effect.at - network.now(), () => {
            wakeAt = Number.POSITIVE_INFINITY;
            say({ _tag: "Tick" });
          });
        }
        if (effect._tag === "AllThere")
          local(
            between(network, 0.1, 2),
            () => {
              guest.listening = false;
            },
            () =>
              step(destination, {
                _tag: "Fetched",
                info: Loader.postcopyInfoOf(postcopy, network.now()),
                isAllThere: true,
              }),
          );
      }
      if (!postcopy.isOver)
        step(destination, {
          _tag: "Fetched",
          info: Loader.postcopyInfoOf(postcopy, network.now()),
          isAllThere: false,
        });
    };
    const arrive = (way: Loader.Way) => (payload: unknown) => {
      if (isDiscarded(destination)) return;
      const packet = payload as SimPacket;
      if (packet.round !== POSTCOPY_ROUND || packet.epoch !== epoch || packet.work.kind !== "pages") return;
      const { block, runs } = packet.work;
      if (!Loader.isExpected(postcopy, way, { item: packet.item, block, runs })) return;
      let index = 0;
      for (let r = 0; r < runs.length; r += 2)
        for (let page = runs[r]!; page < runs[r]! + runs[r + 1]!; page++)
          placePage(guest, page, packet.values[index++]!);
      say({ _tag: "Arrived", way, item: packet.item, wireBytes: packet.values.length * 4096 });
    };
    network.subscribe(NAME, subjects.urgent(destination.route), arrive("urgent"));
    network.subscribe(NAME, subjects.channels(destination.route), arrive("background"));
    network.subscribe(NAME, "supervisor.worker", (payload) => {
      const { worker, up } = payload as { worker: string; up: boolean };
      say({ _tag: up ? "WorkerUp" : "WorkerDown", worker });
    });
    network.onLink(NAME, (connected) => {
      if (connected) say({ _tag: "LinkRestored" });
    });
    scene.touched = (page) =>
      network.timer(NAME, 0.05, () => say({ _tag: "Touched", block: 0, page, thread: 1, since: network.now() }));
    for (const worker of WORKERS) if (network.life(worker) > 0) say({ _tag: "WorkerUp", worker });
    for (const page of guest.touched) scene.touched(page);
    network.timer(NAME, 1, () => say({ _tag: "Tick" }));
    return say;
  };

  const performLocal = (destination: Loader.Destination, localStep: Loader.LocalStep): void => {
    const took = between(network, 0.1, 3);
    const isShaky = localStep !== "resume" && localStep !== "give-up-pages" && localStep !== "discard";
    if (isShaky && network.random() < network.faults.dropRate / 10) {
      const failure = { code: "guest-failed", actor: "loader", step: localStep, reason: "simulated" } as const;
      network.timer(NAME, took, () => step(destination, { _tag: "LocalFailed", step: localStep, failure }));
      return;
    }
    switch (localStep) {
      case "prepare":
        return local(
          took,
          () => {
            if (destination.life > 0) return;
            // One that waits keeps what it has; the device state is gathered anew for each session.
            if (!guest.incoming || guest.loaded !== null) prepareIncoming(guest);
            guest.arrived.clear();
          },
          () =>
            step(destination, {
              _tag: "Prepared",
              words: keep(destination),
              loaded: guest.loaded !== null,
              listening: guest.listening,
            }),
        );
      case "expect-pages": {
        const pages: number[] = [];
        for (const bitmap of answers.get(destination) ?? [])
          for (let page = 0; page < bitmap.pageCount; page++) if (Bitmap.test(bitmap, page)) pages.push(page);
        return local(
          took,
          () => expectPages(guest, pages, broken.has("old pages are kept in a postcopy")),
          () => step(destination, { _tag: "PagesExpected" }),
        );
      }
      case "give-up-pages":
        return local(
          took,
          () => {
            guest.destinationRuns = false;
            guest.lost = true;
          },
          () => scene.incomingEnded(),
        );
      case "load-device-state": {
        const arrived = arrivedDeviceState(guest);
        const unordered = broken.has("device slices in the order of arrival");
        if (
          !guest.incoming ||
          (guest.loaded === null && !unordered && digestOf(arrived) !== destination.promise?.manifest.deviceDigest)
        ) {
          const failure = { code: "device-state-failed", actor: "loader", step: "load", reason: "it differs" } as const;
          network.timer(NAME, took, () => step(destination, { _tag: "LocalFailed", step: localStep, failure }));
          return;
        }
        guest.loaded ??= unordered ? Uint32Array.from(guest.arrived.values()) : arrived;
        return local(
          took,
          () => {},
          () => step(destination, { _tag: "DeviceStateLoaded" }),
        );
      }
      case "resume":
        return local(took, runGuest, () => step(destination, { _tag: "Resumed" }));
      case "discard":
        return local(
          took,
          () => {
            guest.incoming = false;
          },
          () => step(destination, { _tag: "Discarded" }),
        );
    }
  };
  /** The words of the session's fence, on the disk of this host. */
  const keep = (destination: Loader.Destination): Uint32Array => {
    if (destination.life > 0 && scene.kept !== null) {
      scene.kept.life = destination.life;
      return scene.kept.words;
    }
    const { migration, source, epoch, authority, offer, capabilities } = destination;
    const words = new Uint32Array(Loader.Fence.wordsOf(Loader.pagesOf(offer)));
    const { incarnation } = destination;
    scene.kept = { migration, incarnation, source, epoch, term: authority.term, offer, capabilities, life: 0, words };
    return words;
  };

  const receive = (destination: Loader.Destination, packet: SimPacket): void => {
    if (loader.destinations.get(destination.migration) !== destination) return;
    if (!admits(destination, packet, broken)) return;
    const { epoch, round, item, work } = packet;
    const answer = { epoch, round, incarnation: destination.incarnation, items: Uint32Array.of(item) };
    const subject = subjects.acknowledgement(destination.route);
    if (!Loader.Fence.isApplied(destination.fence, packet)) {
      if (guest.destinationRuns) throw new Violation("a page was written into a running guest");
      const differing = work.kind === "check" ? compare(guest, packet) : otherBases(guest, packet);
      if (differing !== null && !broken.has(DIFFERENCE_IGNORED[work.kind])) {
        if (work.kind === "pages") scene.otherBases++;
        return network.send(NAME, subject, { _tag: "Differs", ...answer, differing });
      }
      scene.deltas += packet.bases.size;
      const early = broken.has("acknowledge before applying") && network.random() < 0.05;
      if (!early) apply(guest, packet);
      Loader.Fence.applied(destination.fence, packet);
    }
    const pages = work.kind === "pages" ? work.pages : 0;
    const wire = { normalPages: pages, wireBytes: pages * 4096, xbzrle: NO_XBZRLE };
    network.send(NAME, subject, { _tag: "Applied", ...answer, ...wire });
    step(destination, { _tag: "PacketsApplied" });
  };

  const begin = (destination: Loader.Destination): void => {
    network.subscribe(NAME, subjects.channels(destination.route), (packet) =>
      receive(destination, packet as SimPacket),
    );
    network.subscribe(NAME, missingAnswer(scene.migration), (payload) => {
      const { epoch, bitmaps } = payload as { epoch: number; bitmaps: ReadonlyArray<Bitmap.Bitmap> };
      if (epoch !== destination.epoch) return;
      answers.set(destination, bitmaps);
      step(destination, { _tag: "MissingKnown", digest: digestOfBitmaps(bitmaps.map(({ words }) => words)) });
    });
    network.subscribe(NAME, subjects.switching(destination.route), (told) =>
      step(destination, { _tag: "SwitchingTold", epoch: (told as { epoch: number }).epoch }),
    );
    for (const effect of Loader.begin) perform(destination, effect);
    scene.saw("destination", destination.phase._tag);
  };
  /** What a former life has left, if its guest is still there. */
  const resume = (): void => {
    const { kept } = scene;
    if (broken.has("a restarted loader goes on with memory that is gone") && !guest.incoming) prepareIncoming(guest);
    if (kept === null || !guest.incoming || guest.lost || (guest.destinationRuns && !guest.listening)) {
      scene.kept = null;
      return;
    }
    const destination = Loader.makeDestination({
      ...kept,
      authority: { term: kept.term, coordinator: null },
      guest: name,
      node: NODE_B,
      life: kept.life + 1,
      now: network.now(),
    });
    loader.destinations.set(kept.migration, destination);
    begin(destination);
  };

  scene.incomingEnded = () =>
    network.timer(NAME, WATCH_MS, () => {
      const failure = { code: "guest-failed", actor: "loader", step: "watch", reason: "it is gone" } as const;
      for (const destination of loader.destinations.values())
        if (destination.guest === name) step(destination, { _tag: "GuestEnded", failure });
    });
  resume();
  recoverAfterStart(RECOVERY_LOOKS);
  return (command) => {
    const routed = Loader.route(loader, command, network.now());
    switch (routed._tag) {
      case "Begin":
        return begin(routed.destination);
      case "Step":
        return step(routed.destination, routed.event);
      case "Show":
        return report(routed.destination);
      case "Answer":
        return network.send(NAME, subjects.destinationReport(command), routed.report);
      case "Ignore":
      case "Refuse":
        return;
    }
  };
};

const admits = (destination: Loader.Destination, packet: SimPacket, broken: ReadonlySet<Breakage>): boolean => {
  const verdict = Loader.admit(destination, { ...packet, kind: packet.work.kind });
  if (verdict === "older round") return broken.has("no round fence");
  if (verdict === "other epoch") return broken.has("no epoch check");
  return verdict === "apply";
};

/** What leaves out the look at it. */
const DIFFERENCE_IGNORED = {
  check: "no verification",
  pages: "a delta is applied to whatever is there",
  slice: "no verification",
} as const satisfies Record<SimPacket["work"]["kind"], Breakage>;

const apply = (guest: GuestModel, { work, values, bases }: SimPacket): void => {
  if (work.kind === "check") return;
  if (work.kind === "slice") {
    // As a file takes it: written again, a slice stands where it stood.
    guest.arrived.set(work.offset, values[0]!);
    return;
  }
  let index = 0;
  for (let r = 0; r < work.runs.length; r += 2) {
    for (let page = work.runs[r]!; page < work.runs[r]! + work.runs[r + 1]!; page++, index++)
      guest.destination[page] = bases.has(index) ? guest.destination[page]! ^ values[index]! : values[index]!;
  }
};

/** Which pages of a packet are deltas to something else than what is there, or null when none is. */
const otherBases = (guest: GuestModel, { work, bases }: SimPacket): Uint8Array | null => {
  if (work.kind !== "pages" || bases.size === 0) return null;
  const differing = new Uint8Array((work.pages + 7) >>> 3);
  let index = 0;
  for (let r = 0; r < work.runs.length; r += 2) {
    for (let page = work.runs[r]!; page < work.runs[r]! + work.runs[r + 1]!; page++, index++) {
      const base = bases.get(index);
      if (base !== undefined && base !== guest.destination[page]) differing[index >>> 3]! |= 1 << (index & 7);
    }
  }
  return differing.some((byte) => byte !== 0) ? differing : null;
};

/** Which pages of a check are not what the source says, or null when all are. */
const compare = (guest: GuestModel, { work, values }: SimPacket): Uint8Array | null => {
  if (work.kind !== "check") return null;
  const differing = new Uint8Array((work.pages + 7) >>> 3);
  let index = 0;
  let equal = true;
  for (let r = 0; r < work.runs.length; r += 2) {
    for (let page = work.runs[r]!; page < work.runs[r]! + work.runs[r + 1]!; page++, index++) {
      if (guest.destination[page] === values[index]) continue;
      equal = false;
      differing[index >>> 3]! |= 1 << (index & 7);
    }
  }
  return equal ? null : differing;
};
