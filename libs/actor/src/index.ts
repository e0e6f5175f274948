export { type ActorProgram, actorOf, answering, asGodwitError, GODWIT_VERSION, runActor } from "./actor-process.ts";
export { defaultCheckpointDirectory, defaultGuestDirectory, defaultRuntimeDirectory } from "./directories.ts";
export { drainAtEnd } from "./draining.ts";
export { type Endings, makeEndings } from "./endings.ts";
export { type Alarm, makeAlarm, makeEventLoop, nextTurn } from "./event-loop.ts";
export { type Need, serveHealth } from "./health.ts";
export { hostMicros } from "./host-clock.ts";
export { holdHost } from "./host-lock.ts";
export { identityOf } from "./identity.ts";
export { messageBytesMax } from "./message-size.ts";
export { bucketNeeds, folderNeed } from "./needs.ts";
export { type Opened, openMessages } from "./opened-messages.ts";
export { askRecord, type OwnershipRegister, openOwnershipRegister } from "./ownership-register.ts";
export { announceReady } from "./ready.ts";
export { makeRefusals } from "./refusals.ts";
export {
  addressProblem,
  DEFAULT_DIRECT_LISTEN,
  DEFAULT_NATS,
  type DirectSettings,
  directOf,
  directOptions,
  listenProblem,
  natsOptionsOf,
  randomId,
  readSettings,
  type Settings,
  tlsOf,
} from "./settings.ts";
export { type WorkerNews, watchWorkers } from "./worker-watch.ts";
