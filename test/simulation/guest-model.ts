/** A guest as the simulation knows it: numbers for pages, one ledger for its device state. Both copies live outside the actors, as real guests do. */

export interface GuestModel {
  /** What each page holds; the source's guest writes here. */
  readonly source: Uint32Array;
  readonly destination: Uint32Array;
  readonly dirty: Set<number>;
  sourceRuns: boolean;
  destinationRuns: boolean;
  sourceDiscarded: boolean;
  writes: number;
  /** Device state: the number of writes at the time it was saved. */
  saved: Uint32Array | null;
  /** Slices of the device state that arrived, by offset; its content when loaded. */
  readonly arrived: Map<number, Uint32Array>;
  loaded: boolean;
  incoming: boolean;
  /** How often the guest was started at the destination. */
  starts: number;
}

export const makeGuest = (pages: number): GuestModel => ({
  source: new Uint32Array(pages).fill(1),
  destination: new Uint32Array(pages),
  dirty: new Set(),
  sourceRuns: true,
  destinationRuns: false,
  sourceDiscarded: false,
  writes: 1,
  saved: null,
  arrived: new Map(),
  loaded: false,
  incoming: false,
  starts: 0,
});

/** One write of a running source guest. */
export const write = (guest: GuestModel, page: number): void => {
  if (!guest.sourceRuns) return;
  guest.source[page] = ++guest.writes;
  guest.dirty.add(page);
};

export class Violation extends Error {}

/** What must hold at every instant. */
export const checkAlways = (guest: GuestModel): void => {
  if (guest.sourceRuns && guest.destinationRuns) throw new Violation("two guests run");
  if (guest.destinationRuns && guest.starts > 1) throw new Violation("the guest was started twice at the destination");
};

/** What must hold when the guest starts at the destination. */
export const checkStart = (guest: GuestModel): void => {
  const wrong = guest.source.findIndex((value, page) => guest.destination[page] !== value);
  if (wrong >= 0) {
    throw new Violation(
      `page ${wrong} is ${guest.destination[wrong]} at the destination, ${guest.source[wrong]} at the source`,
    );
  }
  if (!guest.loaded) throw new Violation("the guest started without its device state");
};
