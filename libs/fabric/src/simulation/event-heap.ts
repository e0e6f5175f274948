import type { SimActor } from "./actor.ts";

/** Switched off when a timer is cancelled or a subscription closed: what is on its way then does not arrive. */
export interface Gate {
  open: boolean;
}

/** Something that will happen to an actor at a virtual time. */
export interface SimEvent {
  readonly atMs: number;
  /** Order of creation: what happens at the same time happens in this order. */
  readonly order: number;
  /** `null`: it happens to the world, which neither crashes nor pauses. */
  readonly actor: SimActor | null;
  /** The actor's life it was meant for; a later life does not get it. */
  readonly life: number;
  /** Where it comes from, to be lost when that way is cut; `null` for timers. */
  readonly from: SimActor | null;
  readonly gate: Gate | null;
  readonly run: (argument: unknown, subject: string, answer: unknown) => void;
  readonly argument: unknown;
  readonly subject: string;
  readonly answer: unknown;
}

const before = (a: SimEvent, b: SimEvent): boolean => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

/**
 * Binary heap, earliest first. The children of slot i are 2i+1 and 2i+2, and no child is earlier than its parent.
 */
export class EventHeap {
  readonly #slots: Array<SimEvent> = [];

  get size(): number {
    return this.#slots.length;
  }

  earliest(): SimEvent | undefined {
    return this.#slots[0];
  }

  push(event: SimEvent): void {
    const slots = this.#slots;
    let at = slots.length;
    slots.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = slots[parent] as SimEvent;
      if (!before(event, above)) break;
      slots[at] = above;
      at = parent;
    }
    slots[at] = event;
  }

  pop(): SimEvent | undefined {
    const slots = this.#slots;
    const first = slots[0];
    const last = slots.pop();
    if (first === undefined || last === undefined || slots.length === 0) return first;
    const size = slots.length;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && before(slots[child + 1] as SimEvent, slots[child] as SimEvent)) child++;
      const below = slots[child] as SimEvent;
      if (!before(below, last)) break;
      slots[at] = below;
      at = child;
    }
    slots[at] = last;
    return first;
  }
}
