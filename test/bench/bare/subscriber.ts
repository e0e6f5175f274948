// A process that counts messages, drops them, and acknowledges once per turn of its event loop. Arguments: client, URL.
import { connectBare } from "./client.ts";
import { acknowledgementOf, dataOf, numberOf } from "./subjects.ts";

const [client = "", url = ""] = process.argv.slice(2);

const counts = new Map<string, number>();
const acknowledge = (): void => {
  for (const [number, count] of counts) {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, count);
    nats.publish(acknowledgementOf(client, number), bytes);
  }
  counts.clear();
};
const nats = await connectBare(client, url, (subject) => {
  if (counts.size === 0) setImmediate(acknowledge);
  const number = numberOf(subject);
  counts.set(number, (counts.get(number) ?? 0) + 1);
});
nats.subscribe(dataOf(client, "*"));
await nats.flush();
process.send?.("ready");
process.once("disconnect", () => process.exit(0));
