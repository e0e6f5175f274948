import { NatsConnectionImpl, setTransportFactory } from "@nats-io/nats-core/internal";
import type { ConnectionOptions, NatsConnection } from "@nats-io/transport-node";
import { NodeTransport, nodeResolveHost } from "@nats-io/transport-node/lib/node_transport.js";
import { allocateOwned, free, isWhole } from "../own-memory.ts";
import { wholeMessages } from "./kernel/whole-messages.ts";

/** A frame that long is one that the client has packed for itself; shorter ones may be constants, and are not worth the trouble. */
const FRAME_BYTES_MIN = 65_536;

/** The client's own transport, save that it frees what it has sent and received instead of leaving it to the garbage collector. */
class FrugalTransport extends NodeTransport {
  override setupHandlers(): void {
    super.setupHandlers();
    const cutter = wholeMessages({
      give: (piece) => {
        this.yields.push(piece);
        this.signal.resolve();
      },
      spare: (chunk) => {
        if (isWhole(chunk)) free(chunk);
      },
      allocate: allocateOwned,
    });
    this.socket.removeAllListeners("data");
    this.socket.on("data", cutter.push);
  }

  override send(frame: Uint8Array): void {
    const sent = () => {
      if (frame.length >= FRAME_BYTES_MIN && isWhole(frame)) free(frame);
    };
    // A write that fails is noticed by reading, or by a heartbeat that stays away.
    this._send(frame).then(sent, sent);
  }
}

/** As the client's `connect`, which would set its own transport again. */
export const connect = (options: ConnectionOptions): Promise<NatsConnection> => {
  setTransportFactory({ factory: () => new FrugalTransport(), dnsResolveFn: nodeResolveHost });
  return NatsConnectionImpl.connect(options);
};
