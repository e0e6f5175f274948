import type { SimEvent } from "./event-heap.ts";

/** A process of the simulation. It is known by its name; what it is between two crashes is one life. */
export interface SimActor {
  readonly name: string;
  alive: boolean;
  life: number;
  paused: boolean;
  /** What came while it was paused, in order of arrival. */
  readonly held: Array<SimEvent>;
  /** Called when it crashes: what it had subscribed to. */
  readonly releases: Set<() => void>;
  /** Actors it cannot exchange anything with. */
  readonly cutFrom: Set<SimActor>;
  /** Cut from everybody. */
  disconnected: boolean;
  /** When the last message from each actor arrives, ms: the next one from there arrives later, unless it is reordered. */
  readonly lastArrivalMs: Map<SimActor, number>;
  /** Called with false when it loses its link, with true when it has it back. */
  readonly linkListeners: Set<(connected: boolean) => void>;
  /** What `crash` starts again. */
  boot: (() => void) | null;
}

export function makeActor(name: string): SimActor {
  return {
    name,
    alive: true,
    life: 1,
    paused: false,
    held: [],
    releases: new Set(),
    cutFrom: new Set(),
    disconnected: false,
    lastArrivalMs: new Map(),
    linkListeners: new Set(),
    boot: null,
  };
}

export function isCut(a: SimActor, b: SimActor): boolean {
  if (a === b) return a.disconnected;
  return a.disconnected || b.disconnected || a.cutFrom.has(b);
}
