// A process that counts messages, drops them, and acknowledges once per turn of its event loop. Argument: URL.
import { connect } from "@nats-io/transport-node";
import { acknowledgementOf, dataOf, numberOf } from "./subjects.ts";

const [url = ""] = process.argv.slice(2);

const nc = await connect({ servers: url, noAsyncTraces: true });
const counts = new Map<string, number>();
const acknowledge = (): void => {
  for (const [number, count] of counts) {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, count);
    nc.publish(acknowledgementOf(number), bytes);
  }
  counts.clear();
};
nc.subscribe(dataOf("*"), {
  callback: (_, { subject }) => {
    if (counts.size === 0) setImmediate(acknowledge);
    const number = numberOf(subject);
    counts.set(number, (counts.get(number) ?? 0) + 1);
  },
});
await nc.flush();
process.send?.("ready");
process.once("disconnect", () => process.exit(0));
