import { Fabric } from "@godwit/fabric";
import { GodwitError, MESSAGE_BYTES_MIN } from "@godwit/protocol";
import * as Effect from "effect/Effect";

/** The longest message that the servers of this side take, bytes; fails with `not-supported` where not even one page fits. */
export const messageBytesMax = (actor: string): Effect.Effect<number, GodwitError, Fabric> =>
  Effect.flatMap(Fabric, ({ maxPayloadBytes }) => {
    if (maxPayloadBytes >= MESSAGE_BYTES_MIN) return Effect.succeed(maxPayloadBytes);
    const reason = `max_payload of the NATS server is ${maxPayloadBytes} bytes, too little for one page of memory; 1 MiB is its default`;
    return Effect.fail(new GodwitError({ code: "not-supported", actor, step: "start", reason }));
  });
