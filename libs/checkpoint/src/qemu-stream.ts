/** QEMU's migration stream, for whoever speaks it with a QEMU: without all that checkpoints need besides. */
export { deviceSections } from "./device-sections.ts";
export { RAM_FLAG, RAM_SECTION, SECTION, STREAM_MAGIC, STREAM_VERSION } from "./format.ts";
export { MalformedCheckpoint } from "./malformed.ts";
export { type OwnBlock, type QemuState, takeApart } from "./qemu-state.ts";
export { ignoresShared } from "./stream-head.ts";
export { shortText, text, u8, u16, u32, u64 } from "./stream-words.ts";
