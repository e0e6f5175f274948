// A process that publishes as fast as its window allows, and nothing else. Arguments: client, URL, number, message bytes, messages, window.
import { randomFillSync } from "node:crypto";
import { connectBare } from "./client.ts";
import { acknowledgementOf, dataOf, goOf } from "./subjects.ts";

const [client = "", url = "", number = "", ...sizes] = process.argv.slice(2);
const [messageBytes = 0, messages = 0, window = 0] = sizes.map(Number);

// As many buffers as a multifd worker has: one alone would stay in the processor's cache, which guest memory does not.
const buffers = Array.from({ length: window }, () => randomFillSync(new Uint8Array(messageBytes)));
let sent = 0;
let acknowledged = 0;
const nats = await connectBare(client, url, (subject, payload) => {
  if (subject === goOf(client)) {
    sent = 0;
    acknowledged = 0;
  } else acknowledged += new DataView(payload.buffer, payload.byteOffset).getUint32(0);
  while (sent < messages && sent - acknowledged < window) {
    nats.publish(dataOf(client, number), buffers[sent % window]!);
    sent++;
  }
});
nats.subscribe(acknowledgementOf(client, number));
nats.subscribe(goOf(client));
await nats.flush();
process.send?.("ready");
process.once("disconnect", () => process.exit(0));
