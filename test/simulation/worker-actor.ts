/** A multifd worker on the simulated network: stateless, slow now and then, and it reads memory when it gets to it, not when it was asked. */
import type { Ledger } from "@godwit/multifd";
import { NO_SLOT, POSTCOPY_ROUND, subjects, URGENT_ITEM_FIRST, type XbzrleItem } from "@godwit/protocol";
import { makeDirectSending } from "./direct-sending.ts";
import { SLICE_BYTES } from "./guest-model.ts";
import { NODE_A, NODE_B } from "./names.ts";
import { between } from "./random-times.ts";
import type { Scene } from "./scene.ts";

export interface SimItem {
  readonly migration: string;
  readonly epoch: number;
  readonly round: number;
  readonly item: number;
  readonly work: Ledger.Work;
  readonly channel: number;
  readonly channelEpoch: number;
  /** The file that a slice is read from: a later save makes a new one. */
  readonly saved: Uint32Array | null;
  readonly xbzrle: XbzrleItem | null;
}

/** Bytes that nobody has any more: the guest's process is gone. */
const isGone = ({ guest }: Scene, { round }: SimItem): boolean =>
  round === POSTCOPY_ROUND && (guest.sourceDiscarded || guest.sourceEnded);

export interface SimPacket extends SimItem {
  /** Values of the pages of `work`, in order; of a slice, its one; of a page that is a delta, what is to be changed of its base. */
  readonly values: Uint32Array;
  /** The base of each page that is a delta. */
  readonly bases: ReadonlyMap<number, number>;
}

/** How often, and for how long, the host takes the processor away between reading and sending, ms. */
const PREEMPTED_RATE = 0.2;
const PREEMPTED_MS = 40;

/** All scenes have one network and one lane. */
export const bootWorker = (scenes: ReadonlyArray<Scene>, name: string): void => {
  const { network, direct } = scenes[0]!;
  const scenesById = new Map(scenes.map((scene) => [scene.migration, scene]));
  const send = direct
    ? makeDirectSending(network, name)
    : (subject: string, packet: SimPacket) => network.send(name, subject, packet);
  network.send("supervisor", "supervisor.worker", { worker: name, up: true });
  network.subscribe(name, subjects.work(NODE_A, name, NODE_B), (payload) => {
    const item = payload as SimItem;
    const scene = scenesById.get(item.migration)!;
    const { route } = scene;
    network.timer(name, between(network, 0.1, 2), () => {
      if (isGone(scene, item)) return;
      const values = read(scene, item);
      const packet: SimPacket = { ...item, values, bases: shorten(scene, item, values) };
      // Stopped between reading and sending, a worker wakes up with old bytes in its hands (R7).
      network.timer(name, between(network, 0, network.random() < PREEMPTED_RATE ? PREEMPTED_MS : 1), () =>
        send(isUrgent(item) ? subjects.urgent(route) : subjects.channel(route, item.channel), packet),
      );
    });
  });
};

const isUrgent = ({ round, item }: SimItem): boolean => round === POSTCOPY_ROUND && item >= URGENT_ITEM_FIRST;

const read = (scene: Scene, { work, saved, round }: SimItem): Uint32Array => {
  const { guest, network } = scene;
  if (work.kind === "slice") return Uint32Array.of(saved?.[work.offset / SLICE_BYTES] ?? 0);
  const values: number[] = [];
  // A tracker's copy goes with the switchover; what is fetched in a postcopy is in the guest's memory.
  const memory = round === POSTCOPY_ROUND ? guest.source : (guest.shadow ?? guest.source);
  for (let r = 0; r < work.runs.length; r += 2) {
    for (let page = work.runs[r]!; page < work.runs[r]! + work.runs[r + 1]!; page++) values.push(memory[page]!);
  }
  // On its way a page is under its packet's checksum; in a postcopy nothing else lies between.
  if (work.kind === "pages" && round !== POSTCOPY_ROUND && scene.flipRate > 0 && network.random() < scene.flipRate) {
    scene.flips++;
    values[Math.floor(network.random() * values.length)]! ^= FLIPPED;
    network.trace("flip", "memory", "a page changes between source and destination");
  }
  return Uint32Array.from(values);
};
/** Keeps what is sent, as the item says, and makes deltas of it where the item says that the destination has what was kept. */
const shorten = (scene: Scene, { xbzrle, epoch }: SimItem, values: Uint32Array): ReadonlyMap<number, number> => {
  const bases = new Map<number, number>();
  for (const [index, slot] of (xbzrle?.slots ?? []).entries()) {
    if (slot === NO_SLOT) continue;
    const key = `${epoch} ${slot}`;
    const [base, value] = [scene.sentPages.get(key), values[index]!];
    scene.sentPages.set(key, value);
    if (base === undefined || (xbzrle!.held[index >>> 3]! & (1 << (index & 7))) === 0) continue;
    bases.set(index, base);
    values[index] = value ^ base;
  }
  return bases;
};

/** No write of the guest's has this bit. */
const FLIPPED = 2 ** 30;
