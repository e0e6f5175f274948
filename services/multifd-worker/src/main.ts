import { runActor } from "@godwit/actor";
import { runWorker } from "./worker.ts";

/** GODWIT_WORKER: this worker's number within its node's pool. */
const id = process.env["GODWIT_WORKER"] ?? "0";

runActor("multifd-worker", id, (settings) => runWorker(settings, id));
