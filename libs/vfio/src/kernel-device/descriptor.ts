/** Reading, writing and closing of descriptors that are no files, through `node:fs`: it does so in the background and keeps errno. */
import { close, read, write } from "node:fs";
import { errnoOf, HostError } from "@godwit/host";

type Called = (error: NodeJS.ErrnoException | null, bytes: number) => void;

const called = (operation: string, start: (done: Called) => void): Promise<number> =>
  new Promise((resolve, reject) => {
    start((error, bytes) => {
      if (error === null) resolve(bytes);
      else reject(new HostError(operation, errnoOf(error)));
    });
  });

/** At most `into` is long; from `position`, bytes, or null where the descriptor is a stream: those answer ESPIPE to a position. */
export const readSome = (fd: number, into: Uint8Array, position: number | null): Promise<number> =>
  called("read", (done) => read(fd, into, 0, into.length, position, done));

/** Writes until all is taken, at most `pieceBytesMax` at a time. */
export const writeAll = async (
  fd: number,
  bytes: Uint8Array,
  position: number | null,
  pieceBytesMax: number,
): Promise<void> => {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, pieceBytesMax);
    const at = position === null ? null : position + done;
    const taken = await called("write", (called) => write(fd, bytes, done, length, at, called));
    // A driver that takes nothing and does not say why would be asked for ever.
    if (taken === 0) throw new HostError("write", "EIO", { detail: `took none of ${length} bytes` });
    done += taken;
  }
};

/** Never fails: whatever close says, the descriptor is gone. The last one of a device may take as long as its reset. */
export const closeDescriptor = (fd: number): Promise<void> => new Promise((resolve) => close(fd, () => resolve()));
