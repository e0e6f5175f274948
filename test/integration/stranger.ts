/** Somebody else on the same NATS server: hears everything of all migrations, and says what it likes. */
import { connect } from "@nats-io/transport-node";
import type { World } from "./world.ts";

export interface Overheard {
  readonly subject: string;
  readonly data: Uint8Array;
}

export interface Stranger {
  /** Everything said on the subject (wildcards allowed) since the stranger came, in order. */
  readonly heard: ReadonlyArray<Overheard>;
  /** Calls back with each message from now on, as it comes. */
  readonly onMessage: (listener: (message: Overheard) => void) => void;
  readonly say: (subject: string, data: Uint8Array) => void;
  /** Resolves when the server has everything that was said. */
  readonly flush: () => Promise<void>;
  readonly close: () => Promise<void>;
}

export const joinAsStranger = async (world: World, subject: string): Promise<Stranger> => {
  const nc = await connect({ servers: world.cluster.url.split(","), name: "stranger" });
  const heard: Overheard[] = [];
  const listeners: Array<(message: Overheard) => void> = [];
  nc.subscribe(subject, {
    callback: (error, message) => {
      if (error !== null) throw error;
      // A copy: the client's buffer is large, and this is kept.
      const copy = { subject: message.subject, data: Uint8Array.from(message.data) };
      heard.push(copy);
      for (const listener of listeners) listener(copy);
    },
  });
  await nc.flush();
  return {
    heard,
    onMessage: (listener) => void listeners.push(listener),
    say: (to, data) => nc.publish(to, data),
    flush: () => nc.flush(),
    close: () => nc.close(),
  };
};
