// A process that publishes as fast as its window allows, and nothing else. Arguments: URL, number, message bytes, messages, window.
import { randomFillSync } from "node:crypto";
import { connect } from "@nats-io/transport-node";
import { acknowledgementOf, dataOf, GO } from "./subjects.ts";

const [url = "", number = "", ...sizes] = process.argv.slice(2);
const [messageBytes = 0, messages = 0, window = 0] = sizes.map(Number);

const nc = await connect({ servers: url, noAsyncTraces: true });
// As many buffers as a multifd worker has: one alone would stay in the processor's cache, which guest memory does not.
const buffers = Array.from({ length: window }, () => randomFillSync(new Uint8Array(messageBytes)));
let sent = 0;
let acknowledged = 0;
const send = (): void => {
  while (sent < messages && sent - acknowledged < window) {
    nc.publish(dataOf(number), buffers[sent % window]);
    sent++;
  }
};
nc.subscribe(acknowledgementOf(number), {
  callback: (_, message) => {
    acknowledged += new DataView(message.data.buffer, message.data.byteOffset).getUint32(0);
    send();
  },
});
nc.subscribe(GO, {
  callback: () => {
    sent = 0;
    acknowledged = 0;
    send();
  },
});
await nc.flush();
process.send?.("ready");
process.once("disconnect", () => process.exit(0));
