/** A destination loader on the simulated network: the real decisions, a model of the incoming guest beneath. */
import type { SimNetwork } from "@godwit/fabric/simulation";
import * as Loader from "@godwit/loader/decisions";
import { type DestinationCommand, subjects } from "@godwit/protocol";
import type { Breakage } from "./breakage.ts";
import { checkAlways, checkStart, type GuestModel } from "./guest-model.ts";
import { NODE_B } from "./names.ts";
import { readOwnership, writeOwnership } from "./ownership-register.ts";
import { between } from "./random-times.ts";
import type { SimPacket } from "./worker-actor.ts";

const NAME = "loader";
const RECOVERY_LOOKS = 6;
const RECOVERY_LOOK_MS = 300;
/** A write of the dead may land seconds after its author's successor has looked. */
const RECOVERY_SLOW_LOOK_MS = 2000;

export const bootDestination = (
  network: SimNetwork,
  guest: GuestModel,
  incarnation: string,
  broken: ReadonlySet<Breakage>,
): void => {
  const loader: Loader.Loader = { node: NODE_B, incarnation, destinations: new Map(), discarding: new Set() };

  const runGuest = (): void => {
    if (guest.destinationRuns) return;
    checkStart(guest);
    guest.destinationRuns = true;
    guest.starts++;
    checkAlways(guest);
  };
  const local = (delayMs: number, what: () => void, done: () => void): void => {
    network.after(delayMs, what);
    network.timer(NAME, delayMs + 0.2, done);
  };
  const recoverAfterStart = (looks: number): void =>
    readOwnership(
      network,
      NAME,
      looks === RECOVERY_LOOKS ? 0 : looks > 1 ? RECOVERY_LOOK_MS : RECOVERY_SLOW_LOOK_MS,
      (entry) => {
        if (entry === "Unknown") return recoverAfterStart(looks);
        const recovery = Loader.recover(entry, NODE_B, `${incarnation}-recovery`, false);
        if (recovery._tag === "Start") return local(between(network, 0.1, 2), runGuest, () => {});
        if (!guest.destinationRuns) recoverAfterStart(Math.max(1, looks - 1));
      },
    );

  const step = (destination: Loader.Destination, event: Loader.DestinationEvent): void => {
    for (const effect of Loader.step(destination, event, network.now())) perform(destination, effect);
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
    network.send(NAME, subjects.destinationReport(destination.migration), Loader.reportOf(destination));

  const perform = (destination: Loader.Destination, effect: Loader.DestinationEffect): void => {
    switch (effect._tag) {
      case "Local":
        return performLocal(destination, effect.step);
      case "ReadRecord":
        return readOwnership(network, NAME, effect.afterMs, (entry) =>
          step(destination, { _tag: "RecordRead", op: effect.op, entry }),
        );
      case "WriteRecord":
        if (broken.has("start without compare-and-set")) runGuest();
        return writeOwnership(network, NAME, effect, (outcome) =>
          step(destination, { _tag: "RecordWritten", op: effect.record.op, outcome }),
        );
      case "Report":
        return report(destination);
      case "WakeAt":
        return wake(destination, effect.at);
    }
  };
  const performLocal = (destination: Loader.Destination, localStep: Loader.LocalStep): void => {
    const took = between(network, 0.1, 3);
    if (localStep !== "resume" && localStep !== "discard" && network.random() < network.faults.dropRate / 10) {
      const failure = { code: "guest-failed", actor: "loader", step: localStep, reason: "simulated" } as const;
      network.timer(NAME, took, () => step(destination, { _tag: "LocalFailed", step: localStep, failure }));
      return;
    }
    switch (localStep) {
      case "prepare":
        // A new incoming guest has empty memory.
        return local(
          took,
          () => {
            guest.destination.fill(0);
            guest.arrived.clear();
            guest.loaded = false;
            guest.incoming = true;
          },
          () =>
            step(destination, {
              _tag: "Prepared",
              words: new Uint32Array(Loader.Fence.wordsOf(Loader.pagesOf(destination.offer))),
            }),
        );
      case "load-device-state":
        return local(
          took,
          () => {
            guest.loaded = guest.arrived.size === 2;
          },
          () => step(destination, { _tag: "DeviceStateLoaded" }),
        );
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
  const receive = (destination: Loader.Destination, packet: SimPacket): void => {
    if (!admits(destination, packet, broken)) return;
    if (Loader.Fence.isApplied(destination.fence, packet)) return;
    const early = broken.has("acknowledge before applying") && network.random() < 0.05;
    if (!early) apply(guest, packet);
    Loader.Fence.applied(destination.fence, packet);
    network.send(NAME, subjects.acknowledgement(destination.migration), {
      _tag: "Applied",
      epoch: packet.epoch,
      round: packet.round,
      incarnation,
      items: Uint32Array.of(packet.item),
      normalPages: packet.values.length,
      wireBytes: packet.values.length * 4096,
    });
    step(destination, { _tag: "PacketsApplied" });
  };

  network.subscribe(NAME, subjects.destination(NODE_B), (payload) => {
    const command = payload as DestinationCommand;
    const routed = Loader.route(loader, command, network.now());
    switch (routed._tag) {
      case "Begin": {
        const { destination } = routed;
        network.subscribe(NAME, subjects.channels(destination.migration), (packet) =>
          receive(destination, packet as SimPacket),
        );
        network.subscribe(NAME, subjects.switching(destination.migration), (told) =>
          step(destination, { _tag: "SwitchingTold", epoch: (told as { epoch: number }).epoch }),
        );
        for (const effect of Loader.begin) perform(destination, effect);
        return;
      }
      case "Step":
        return step(routed.destination, routed.event);
      case "Show":
        return report(routed.destination);
      case "Answer":
        return network.send(NAME, subjects.destinationReport(command.migration), routed.report);
      case "Ignore":
        return;
    }
  });
  recoverAfterStart(RECOVERY_LOOKS);
};

const admits = (destination: Loader.Destination, packet: SimPacket, broken: ReadonlySet<Breakage>): boolean => {
  const verdict = Loader.admit(destination, packet);
  if (verdict === "older round") return broken.has("no round fence");
  if (verdict === "other epoch") return broken.has("no epoch check");
  return verdict === "apply";
};

const apply = (guest: GuestModel, packet: SimPacket): void => {
  if (packet.work.kind === "slice") {
    if (packet.saved !== null) guest.arrived.set(packet.work.offset, packet.saved);
    return;
  }
  const { runs } = packet.work;
  let index = 0;
  for (let r = 0; r < runs.length; r += 2) {
    for (let page = runs[r]!; page < runs[r]! + runs[r + 1]!; page++) guest.destination[page] = packet.values[index++]!;
  }
};
