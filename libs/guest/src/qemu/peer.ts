import type { Socket } from "node:net";
import { type PeerCredentials, peerCredentials } from "@godwit/host";

/** Who is at the other end of a unix socket. Throws when the connection has ended. */
export const peerOf = (socket: Socket): PeerCredentials => {
  // node:net has no public name for a socket's descriptor.
  const handle = (socket as unknown as { readonly _handle: { readonly fd: number } | null })._handle;
  if (handle === null) throw new Error("the connection has ended");
  return peerCredentials(handle.fd);
};
