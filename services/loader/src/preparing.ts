/** Gets the guest of a session ready to receive: found or started, compared with its source, its memory and the session's file open. */
import { asGodwitError, type Settings } from "@godwit/actor";
import { destinationSealing, makeOpener, type Opener, type Sealing, writeSealing } from "@godwit/encryption";
import type { Fabric } from "@godwit/fabric";
import { type Guest, openDestination, openRegistered, type Registry } from "@godwit/guest";
import type { RamBlock } from "@godwit/memory";
import { GodwitError } from "@godwit/protocol";
import type { DeviceSpec } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { sealingOf } from "./agreeing.ts";
import { openReceiver, type Receiver } from "./applying.ts";
import { type Destination, differences, Fence, pagesOf } from "./decisions/index.ts";
import { type GuestMemory, memoryOf } from "./guest-memory.ts";
import { createSessionFile, reopenSessionFile, type SessionFacts, type SessionFile } from "./session-file.ts";

export interface Prepared {
  readonly guest: Guest;
  readonly receiver: Receiver;
  /** The guest's own, in the order of the offer. */
  readonly blocks: ReadonlyArray<RamBlock>;
  readonly file: SessionFile;
  /** What every packet goes through first. */
  readonly opener: Opener;
  /** A former life of this loader has loaded the device state, and may have committed it. */
  readonly loaded: boolean;
  /** It waits for missing pages. */
  readonly listening: boolean;
}

interface Tools {
  readonly settings: Settings;
  readonly registry: Registry;
}

export const prepare = Effect.fnUntraced(function* (
  destination: Destination,
  tools: Tools,
): Effect.fn.Return<Prepared, GodwitError, Scope.Scope | Fabric> {
  // Before a guest is started: whoever sends may be nobody to take one from.
  const sealing = yield* sealingOf(destination, tools.settings);
  const { spec, guest, undo } = yield* incoming(destination, tools);
  // A guest that was started for nothing would stand in the way of the next one.
  return yield* Effect.onError(makeReady(destination, guest, spec.devices ?? [], sealing, tools.settings), () => undo);
});

/** The incoming guest: found again by a loader that was restarted, else one that waits or is started. */
const incoming = (destination: Destination, { settings, registry }: Tools) => {
  if (destination.life > 0)
    return Effect.map(openRegistered(registry, destination.guest), (opened) => ({ ...opened, undo: Effect.void }));
  const { offer } = destination;
  const blocks = offer.blocks.map((block) => ({
    name: block.name,
    lengthBytes: block["length-bytes"],
    hostPageBytes: block["page-size"],
    path: "",
    fileOffset: 0,
  }));
  const wanted = {
    name: destination.guest,
    driver: offer.driver,
    blocks,
    epoch: destination.epoch,
    devices: offer.devices ?? [],
  };
  return openDestination(registry, wanted, settings.guestDirectory);
};

const makeReady = Effect.fnUntraced(function* (
  destination: Destination,
  guest: Guest,
  devices: ReadonlyArray<DeviceSpec>,
  sealing: Sealing,
  settings: Settings,
): Effect.fn.Return<Prepared, GodwitError, Scope.Scope> {
  const { offer } = destination;
  const description = yield* guest.describe;
  const found = differences(offer, { ...description, devices });
  if (found.length > 0) {
    return yield* new GodwitError({
      code: "incompatible",
      actor: "loader",
      side: "destination",
      step: "compare both sides",
      reason: `source and destination of guest ${destination.guest} differ`,
      differences: found,
    });
  }
  const byName = new Map(description.blocks.map((block) => [block.name, block]));
  const blocks = offer.blocks.map((block) => byName.get(block.name)!);
  const opened = Effect.try({
    try: () => {
      const file = openFile(destination, settings, memoryOf(description));
      try {
        const { migration, epoch } = destination;
        writeSealing(destinationSealing(settings.runtimeDirectory, migration, epoch), sealing);
        const opener = makeOpener(sealing, { migration, epoch, purpose: "ram" });
        const receiver = openReceiver(blocks, file.deviceStatePath);
        // One that runs was committed, and waits for pages of a postcopy.
        const loaded = description.runState === "paused" || description.runState === "running";
        return { guest, receiver, blocks, file, opener, loaded, listening: description.pagesMissing === true };
      } catch (error) {
        file.remove();
        throw error;
      }
    },
    catch: asGodwitError("loader", "open the guest's memory"),
  });
  // Its memory is empty afterwards: what a former life has received must stay.
  if (destination.capabilities["postcopy-ram"] !== true || destination.life > 0) return yield* opened;
  yield* guest.prepareForPostcopy;
  // It may be of no use to another attempt.
  return yield* Effect.onError(opened, () => Effect.ignore(guest.discard));
});

const openFile = (destination: Destination, { runtimeDirectory }: Settings, memory: GuestMemory): SessionFile => {
  const facts = factsOf(destination, memory);
  const words = Fence.wordsOf(pagesOf(destination.offer));
  if (destination.life === 0) return createSessionFile(runtimeDirectory, facts, words);
  const left = reopenSessionFile(runtimeDirectory, facts, words);
  if (left === null) throw new Error("what a former life of this loader left is not whole, or was of another guest");
  return left;
};

const factsOf = (destination: Destination, memory: GuestMemory): SessionFacts => ({
  migration: destination.migration as SessionFacts["migration"],
  guest: destination.guest as SessionFacts["guest"],
  source: destination.source as SessionFacts["source"],
  incarnation: destination.incarnation as SessionFacts["incarnation"],
  life: destination.life,
  epoch: destination.epoch as SessionFacts["epoch"],
  term: destination.authority.term,
  offer: destination.offer,
  memory,
  parameters: destination.parameters,
  capabilities: destination.capabilities,
});
