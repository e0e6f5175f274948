// A process that answers each request with a page of bytes. Argument: URL.
import { randomBytes } from "node:crypto";
import { connect } from "@nats-io/transport-node";
import { PAGE_REQUEST } from "./subjects.ts";

const [url = ""] = process.argv.slice(2);

const nc = await connect({ servers: url, noAsyncTraces: true });
const page = randomBytes(4096);
nc.subscribe(PAGE_REQUEST, { callback: (_, message) => void message.respond(page) });
await nc.flush();
process.send?.("ready");
process.once("disconnect", () => process.exit(0));
