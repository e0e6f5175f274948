export * as Channels from "./channels.ts";
export * as CodecChoice from "./codec-choice.ts";
export * as Cuts from "./cuts.ts";
export * as Handing from "./handing.ts";
export * as Ledger from "./ledger.ts";
export * as Pace from "./pace.ts";
export * as Verification from "./verification.ts";
