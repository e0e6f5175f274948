/** A multifd worker on the simulated network: stateless, slow now and then, and it reads memory when it gets to it, not when it was asked. */
import type { SimNetwork } from "@godwit/fabric/simulation";
import { subjects } from "@godwit/protocol";
import type { Work } from "@godwit/ram-sender/decisions";
import type { GuestModel } from "./guest-model.ts";
import { NODE_A } from "./names.ts";
import { between } from "./random-times.ts";

export interface SimItem {
  readonly migration: string;
  readonly epoch: number;
  readonly round: number;
  readonly item: number;
  readonly work: Work;
  readonly channel: number;
  readonly channelEpoch: number;
  readonly saved: Uint32Array | null;
}
export interface SimPacket extends SimItem {
  /** Values of the pages of `work`, in order. */
  readonly values: Uint32Array;
}

/** How often, and for how long, the host takes the processor away between reading and sending, ms. */
const PREEMPTED_RATE = 0.2;
const PREEMPTED_MS = 40;

export const bootWorker = (network: SimNetwork, guest: GuestModel, name: string): void => {
  network.send("supervisor", "supervisor.worker", { worker: name, up: true });
  network.subscribe(name, subjects.work(NODE_A, name), (payload) => {
    const item = payload as SimItem;
    network.timer(name, between(network, 0.1, 2), () => {
      const values: number[] = [];
      if (item.work.kind === "pages") {
        const { runs } = item.work;
        for (let r = 0; r < runs.length; r += 2) {
          for (let page = runs[r]!; page < runs[r]! + runs[r + 1]!; page++) values.push(guest.source[page]!);
        }
      }
      const packet: SimPacket = { ...item, values: Uint32Array.from(values) };
      // Stopped between reading and sending, a worker wakes up with old bytes in its hands (R7).
      network.timer(name, between(network, 0, network.random() < PREEMPTED_RATE ? PREEMPTED_MS : 1), () =>
        network.send(name, subjects.channel(item.migration, item.channel), packet),
      );
    });
  });
};
