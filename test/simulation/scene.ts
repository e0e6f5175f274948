/** A guest on its way in a run: what all actors know of it, the disks that outlive processes, and who watches. Guests of one run share network and actors. */
import type { SimNetwork } from "@godwit/fabric/simulation";
import type { Offer } from "@godwit/protocol";
import type { Breakage } from "./breakage.ts";
import type { GuestModel } from "./guest-model.ts";

/** A loader's session as its file keeps it. */
export interface KeptSession {
  readonly migration: string;
  readonly incarnation: string;
  readonly source: string;
  readonly epoch: number;
  readonly term: number;
  readonly offer: Offer;
  readonly capabilities: Readonly<Record<string, boolean>>;
  life: number;
  readonly words: Uint32Array;
}

export interface Scene {
  readonly network: SimNetwork;
  readonly name: string;
  readonly migration: string;
  readonly route: { readonly migration: string; readonly source: string; readonly destination: string };
  readonly guest: GuestModel;
  readonly broken: ReadonlySet<Breakage>;
  readonly verify: boolean;
  /** The migration goes to postcopy after its first round. */
  readonly postcopy: boolean;
  /** In the middle of it a host is out of reach for long, and an operator gives the guest up. */
  readonly givesUp: boolean;
  /** Workers send by connections of their own, while they have them (parameter `lane`). */
  readonly direct: boolean;
  /** Pages that are dirtied again go as deltas (capability `xbzrle`). */
  readonly xbzrle: boolean;
  readonly switchoverDeadlineMs: number;
  /** How often a page changes on its way, of all that are sent; seen only with verification. */
  readonly flipRate: number;
  /** The session file of the loader's host. */
  kept: KeptSession | null;
  /** Pages that changed on their way so far. */
  flips: number;
  /** What the workers of the source's host keep of pages that they sent, by epoch and slot. */
  readonly sentPages: Map<string, number>;
  /** Pages that came as deltas so far, and packets with deltas to something that the destination does not have. */
  deltas: number;
  otherBases: number;
  /** What watches over each guest's process tells the actor beside it; set by that actor. */
  sourceEnded: () => void;
  incomingEnded: () => void;
  /** The destination's guest waits for a page; set by the loader. */
  touched: (page: number) => void;
  /** Told of each phase that a side of the migration is in, for whoever waits for it. */
  saw: (side: "source" | "destination" | "coordinator", phase: string) => void;
}
