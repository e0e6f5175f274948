export { type ActorProgram, asGodwitError, GODWIT_VERSION, runActor } from "./actor-process.ts";
export { type Endings, makeEndings } from "./endings.ts";
export { type Alarm, makeAlarm, makeEventLoop } from "./event-loop.ts";
export { holdHost } from "./host-lock.ts";
export { askRecord, type OwnershipRegister, openOwnershipRegister } from "./ownership-register.ts";
export { DEFAULT_NATS, defaultRuntimeDirectory, randomId, readSettings, type Settings } from "./settings.ts";
