/** A guest as the simulation knows it: numbers for pages, two slices of device state. Both copies live outside the actors, as real guests do. */

/** Bytes of one slice: where the second begins. */
export const SLICE_BYTES = 256 * 1024;
export const SLICES = 2;

export interface GuestModel {
  /** What each page holds; the source's guest writes here. */
  readonly source: Uint32Array;
  readonly destination: Uint32Array;
  readonly dirty: Set<number>;
  /** What a content tracker compares with, and what is sent then; null: workers read the guest's memory itself. */
  readonly shadow: Uint32Array | null;
  sourceRuns: boolean;
  destinationRuns: boolean;
  sourceDiscarded: boolean;
  /** The guest has shut down, or its process was killed: it runs nowhere, unless it had been handed over. */
  sourceEnded: boolean;
  writes: number;
  /** Device state as it was saved last: one number for each slice, none of which was ever saved before. */
  saved: Uint32Array | null;
  /** The device state as it arrives at the destination, by offset, and as it was loaded. */
  readonly arrived: Map<number, number>;
  loaded: Uint32Array | null;
  /** An incoming guest is there: its memory outlives a loader, and goes with its host. */
  incoming: boolean;
  /** Postcopy: pages that the destination's copy waits for, until it is told that all are there; and those it was touched for. */
  readonly missing: Set<number>;
  listening: boolean;
  readonly touched: Set<number>;
  /** Pages of the destination's copy that its guest has written since it runs. */
  readonly own: Set<number>;
  /** The destination's guest was given up: what it lacks is lost. */
  lost: boolean;
  /** The record says so, and the destination may not know it yet. */
  isSaidLost: boolean;
  /** How often the guest was started at the destination. */
  starts: number;
}

export const makeGuest = (pages: number, shadowed: boolean): GuestModel => ({
  source: new Uint32Array(pages).fill(1),
  destination: new Uint32Array(pages),
  dirty: new Set(),
  shadow: shadowed ? new Uint32Array(pages) : null,
  sourceRuns: true,
  destinationRuns: false,
  sourceDiscarded: false,
  sourceEnded: false,
  writes: 1,
  saved: null,
  arrived: new Map(),
  loaded: null,
  incoming: false,
  missing: new Set(),
  listening: false,
  touched: new Set(),
  own: new Set(),
  lost: false,
  isSaidLost: false,
  starts: 0,
});

/** Lets the source's guest go on, if it is still there. */
export const resumeSource = (guest: GuestModel): void => {
  if (!guest.sourceEnded) guest.sourceRuns = true;
};

export const endSource = (guest: GuestModel): void => {
  guest.sourceRuns = false;
  guest.sourceEnded = true;
};

/** One write of a running source guest. */
export const write = (guest: GuestModel, page: number): void => {
  if (!guest.sourceRuns) return;
  guest.source[page] = ++guest.writes;
  guest.dirty.add(page);
};

/** Saves the device state anew; returns its digest. */
export const saveDeviceState = (guest: GuestModel): number => {
  guest.saved = Uint32Array.from({ length: SLICES }, () => ++guest.writes);
  return digestOf(guest.saved);
};

export const digestOf = (slices: Uint32Array): number =>
  slices.reduce((digest, slice) => (digest * 31 + slice) % 2 ** 31, 7);

/** The device state that has arrived, in the order of its offsets. */
export const arrivedDeviceState = (guest: GuestModel): Uint32Array =>
  Uint32Array.from([...guest.arrived.entries()].sort(([a], [b]) => a - b).map(([, slice]) => slice));

/** A new incoming guest has empty memory and no device state. */
export const prepareIncoming = (guest: GuestModel): void => {
  guest.destination.fill(0);
  guest.arrived.clear();
  guest.loaded = null;
  guest.incoming = true;
  guest.missing.clear();
  guest.touched.clear();
  guest.listening = false;
};

/** Postcopy, before the guest runs: these pages are thrown away, and will be waited for. */
export const expectPages = (guest: GuestModel, pages: ReadonlyArray<number>, keepOld: boolean): void => {
  if (guest.destinationRuns) throw new Violation("pages of a running guest are thrown away");
  guest.listening = true;
  for (const page of pages) {
    if (keepOld && guest.destination[page] !== 0) continue;
    guest.destination[page] = 0;
    guest.missing.add(page);
  }
};

/** As the kernel does it: a page that is there already stays as it is. */
export const placePage = (guest: GuestModel, page: number, value: number): void => {
  if (!guest.missing.delete(page)) return;
  guest.touched.delete(page);
  guest.destination[page] = value;
  // Before the commit the source may have taken the guest back, and the copy here never runs; should it, its start finds the page.
  if (guest.destinationRuns && guest.source[page] !== value)
    throw new Violation(`page ${page} came as ${value}, and is ${guest.source[page]} at the source`);
};

/** The guest at the destination goes to a page: it writes it, or waits for it. True when it waits. */
export const touch = (guest: GuestModel, page: number): boolean => {
  if (guest.missing.has(page)) {
    guest.touched.add(page);
    return true;
  }
  if (!guest.own.has(page) && guest.destination[page] !== guest.source[page])
    throw new Violation(`the guest finds ${guest.destination[page]} in page ${page}, and left ${guest.source[page]}`);
  guest.own.add(page);
  return false;
};

export class Violation extends Error {}

/** What must hold at every instant. */
export const checkAlways = (guest: GuestModel): void => {
  if (guest.sourceRuns && guest.destinationRuns) throw new Violation("two guests run");
  if (guest.starts > 1) throw new Violation("the guest was started twice at the destination");
  if (guest.sourceDiscarded && guest.missing.size > 0 && guest.destinationRuns && !guest.isSaidLost)
    throw new Violation(`the source's copy is gone, and ${guest.missing.size} pages are missing at the destination`);
  if (guest.sourceRuns && guest.sourceDiscarded) throw new Violation("a guest runs that was discarded");
};

/** What must hold when the guest starts at the destination. */
export const checkStart = (guest: GuestModel): void => {
  const wrong = guest.source.findIndex((value, page) => guest.destination[page] !== value && !guest.missing.has(page));
  if (wrong >= 0) {
    throw new Violation(
      `page ${wrong} is ${guest.destination[wrong]} at the destination, ${guest.source[wrong]} at the source`,
    );
  }
  const { saved, loaded } = guest;
  if (loaded === null) throw new Violation("the guest started without its device state");
  if (saved === null || loaded.length !== saved.length || loaded.some((slice, i) => slice !== saved[i]))
    throw new Violation(`the device state is ${loaded.join(" ")}, and ${saved?.join(" ")} was saved`);
};
