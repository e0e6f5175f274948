/**
 * Memory that belongs to one message alone, and can be given back without waiting for the garbage collector. Large buffers
 * outside its heap are what makes V8 collect often; at the rate of a migration that took half of an actor's time.
 */
const owned = new WeakSet<ArrayBufferLike>();

/** Memory of that length for one message. Not cleared. */
export const allocateOwned = (lengthBytes: number): Buffer => {
  // Never from the pool, which others have a part of.
  const buffer = Buffer.allocUnsafeSlow(lengthBytes);
  owned.add(buffer.buffer);
  return buffer;
};

/** Declares that nobody else has a part of the memory under a view, when the view is of all of it. */
export const ownMemory = (view: Uint8Array): void => {
  if (isWhole(view)) owned.add(view.buffer);
};

const lent = new WeakMap<ArrayBufferLike, () => void>();

/** Memory that is used again once whoever got the message is done with it: `giveBack` is called then, once. Who never says so keeps it. */
export const lendMemory = (room: Uint8Array, giveBack: () => void): void => {
  lent.set(room.buffer, giveBack);
};

/** Frees the memory under a view at once: the view, and every other one of that memory, is empty from then on. */
export const free = (view: Uint8Array): void => {
  if (view.buffer instanceof ArrayBuffer && !view.buffer.detached) view.buffer.transfer(0);
};

/** Whether a view is of all the memory that there is under it. */
export const isWhole = (view: Uint8Array): boolean => view.byteLength === view.buffer.byteLength;

/**
 * Whoever has got a message (`Message.data`) and is done with it may say so: its bytes are gone from then on, and where they had
 * memory of their own, that is free, or used for another message, in this turn. Without this word the garbage collector finds out in time.
 *
 * Trap: whoever hears of a message within its arrival says so while the client's parser still stands in that memory. It reads on to the
 * message's end before anything else has a turn, and would lose its place if the memory were gone under it.
 */
export const letGo = (data: Uint8Array): void => {
  const giveBack = lent.get(data.buffer);
  if (giveBack !== undefined) {
    lent.delete(data.buffer);
    return giveBack();
  }
  if (owned.has(data.buffer)) queueMicrotask(() => free(data));
};
