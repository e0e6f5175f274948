/** Where the bytes of a connection go: each read writes straight to its place. */
export interface ByteSink {
  /** Where the next bytes belong; never empty. The same until `filled` is called. */
  readonly room: () => Uint8Array;
  /** So many bytes, from the front of that room, are there now. False: what came is not what must come, and nothing more may. */
  readonly filled: (bytes: number) => boolean;
}

/** Puts bytes into a sink that came in memory of their own, as those of TLS do. False: as `filled`. */
export const pour = (sink: ByteSink, bytes: Uint8Array): boolean => {
  for (let at = 0; at < bytes.length; ) {
    const room = sink.room();
    const count = Math.min(room.length, bytes.length - at);
    room.set(bytes.subarray(at, at + count));
    if (!sink.filled(count)) return false;
    at += count;
  }
  return true;
};
