/** With what the processes of the bare lane speak to the server. */
import { connect } from "@nats-io/transport-node";
import { connectFabric } from "./fabric.ts";
import { connectSocket } from "./nats-socket.ts";

export const CLIENTS = ["nats.js", "socket", "fabric"] as const;
export type ClientName = (typeof CLIENTS)[number];
export type Hear = (subject: string, payload: Uint8Array) => void;

export interface BareClient {
  readonly subscribe: (subject: string) => void;
  /** The payload may not be written to before it has left. */
  readonly publish: (subject: string, payload: Uint8Array) => void;
  /** Resolves once the server has answered. */
  readonly flush: () => Promise<unknown>;
}

export const connectBare = async (client: string, url: string, hear: Hear): Promise<BareClient> => {
  if (client === "socket") return connectSocket(url, hear);
  if (client === "fabric") return connectFabric(url, hear);
  const nc = await connect({ servers: url, noAsyncTraces: true });
  return {
    subscribe: (subject) =>
      void nc.subscribe(subject, { callback: (_, message) => hear(message.subject, message.data) }),
    publish: (subject, payload) => nc.publish(subject, payload),
    flush: () => nc.flush(),
  };
};
