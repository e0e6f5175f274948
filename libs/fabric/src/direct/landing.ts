/** Where the packets of direct connections wait for a session, in order of arrival; when too much waits, the connections are not read from. */
import type { LanePurpose, Route } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type { Message } from "../fabric.ts";
import type { Inlet } from "./inlet.ts";

/** What may wait, bytes: twice what a migration may have unacknowledged, so that it is never reached by one that keeps its windows. */
export const WAITING_BYTES_MAX = 64 * 1024 ** 2;
/** Packets that may wait: those windows full of single pages. */
export const WAITING_PACKETS_MAX = 16_384;
/** Connections of one purpose: every channel's, and the one before it that has not ended yet. */
export const CONNECTIONS_MAX = 510;

export interface LandingOptions {
  readonly route: Route;
  readonly epoch: number;
  readonly purpose: LanePurpose;
  /** As which message a channel's packet would have come. */
  readonly subjectOf: (channel: number) => string;
}

export interface Queue {
  /** Waits for at least one, then takes all that are there. */
  readonly takeAll: Effect.Effect<ReadonlyArray<Message>>;
  /** Null: there are enough. */
  readonly attach: (inlet: Inlet, channel: number) => { take: (frame: Uint8Array) => void; closed: () => void } | null;
  /** Ends every connection. */
  readonly endAll: () => void;
}

export const makeQueue = ({ subjectOf }: LandingOptions): Queue => {
  const inlets = new Set<Inlet>();
  let waiting: Message[] = [];
  let waitingBytes = 0;
  let isPaused = false;
  let bell: (() => void) | null = null;
  /** Once for all that is read in a turn of the event loop: what comes together is acknowledged together. */
  let isRinging = false;

  const takeWaiting = (): ReadonlyArray<Message> => {
    const taken = waiting;
    waiting = [];
    waitingBytes = 0;
    if (isPaused) {
      isPaused = false;
      for (const inlet of inlets) inlet.resume();
    }
    return taken;
  };
  const put = (message: Message): void => {
    waiting.push(message);
    waitingBytes += message.data.length;
    if (!isPaused && (waitingBytes >= WAITING_BYTES_MAX || waiting.length >= WAITING_PACKETS_MAX)) {
      isPaused = true;
      for (const inlet of inlets) inlet.pause();
    }
    if (isRinging || bell === null) return;
    isRinging = true;
    setImmediate(() => {
      isRinging = false;
      bell?.();
    });
  };
  const ring = Effect.callback<void>((resume) => {
    bell = () => {
      bell = null;
      resume(Effect.void);
    };
    return Effect.sync(() => {
      bell = null;
    });
  });
  return {
    takeAll: Effect.suspend(() => (waiting.length > 0 ? Effect.sync(takeWaiting) : Effect.map(ring, takeWaiting))),
    attach: (inlet, channel) => {
      if (inlets.size >= CONNECTIONS_MAX) return null;
      inlets.add(inlet);
      if (isPaused) inlet.pause();
      const subject = subjectOf(channel);
      return { take: (data) => put({ subject, data }), closed: () => void inlets.delete(inlet) };
    },
    endAll: () => {
      for (const inlet of [...inlets]) inlet.destroy();
      waiting = [];
      waitingBytes = 0;
    },
  };
};
