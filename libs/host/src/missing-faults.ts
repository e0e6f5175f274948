/**
 * Memory whose pages come later: a thread that touches a missing page stops in the kernel until somebody places the page.
 *
 *     guest's process                          handler, any process that borrowed the descriptor
 *       registers its memory, holds the userfaultfd
 *       a thread touches a missing page ------> readFaults
 *       (waits in the kernel)                   copyPages / zeroPages: places it, and wakes whoever waits
 *       <-------------------------------------- or wakePages: it is there already, look again
 *
 * All calls act on the memory of the process that opened the userfaultfd, whoever makes them; addresses are those of that process,
 * multiples of the page size. A page that is there is never overwritten. They fail with ESRCH once that process is gone, and with
 * ENOENT when the range is not registered (any more).
 *
 * Traps. Who reads the file behind the memory fills its holes with zeros, and those pages then count as there. A message that was
 * read by a handler which died is not said again: its successor calls `wakePages` over all memory, and the faults are raised anew.
 */
import { HostError } from "./host-error.ts";
import { addressOf, checked, lastErrno, libc } from "./libc.ts";
import { PAGE_BYTES } from "./page.ts";
import { MODES, registerRange, UFFDIO } from "./userfaultfd.ts";

/** Memory of the process that opened the userfaultfd. */
export interface MemoryRange {
  readonly address: bigint;
  readonly lengthBytes: number;
}

/** Which faults shall stop a thread or be noted: `written` keeps a range's write tracking, which is of the same registration. */
export type Registered = "missing" | "missing and written";

/** Stops threads at missing pages of a range from now on. A range that this userfaultfd has already may be registered again, for more. */
export const registerMissing = (fd: number, { address, lengthBytes }: MemoryRange, what: Registered): void =>
  registerRange(fd, address, lengthBytes, what === "missing" ? MODES.MISSING : MODES.MISSING | MODES.WRITE_PROTECT);

/**
 * Ends the registration: threads that wait go on, and what is still missing is zeros from now on. Write tracking of the range ends
 * with it; when it is registered anew, every page counts as written.
 */
export const unregister = (fd: number, range: MemoryRange): void => {
  const request = new BigUint64Array([range.address, BigInt(range.lengthBytes)]);
  checked(libc.ioctl(fd, UFFDIO.UNREGISTER, request), "ioctl(UFFDIO_UNREGISTER)");
  // The kernel wakes those that wait, then clears the write protection of each page, then ends the registration: a thread that comes
  // in between (measured on Linux 6.18: milliseconds for a large range) would wait for ever.
  wakePages(fd, range);
};

/** Lets threads that wait in a range look again: what is there now they use, what is missing they raise again. */
export const wakePages = (fd: number, { address, lengthBytes }: MemoryRange): void => {
  const request = new BigUint64Array([address, BigInt(lengthBytes)]);
  checked(libc.ioctl(fd, UFFDIO.WAKE, request), "ioctl(UFFDIO_WAKE)");
};

/**
 * Places whole pages, those that are missing, and wakes whoever waits for any of them. Returns how many were missing. `pageBytes`: of the
 * memory's host pages, of which `source` holds a whole number.
 */
export const copyPages = (fd: number, address: bigint, source: Uint8Array, pageBytes = PAGE_BYTES): number => {
  const from = addressOf(source);
  return place(fd, address, source.length / pageBytes, pageBytes, UFFDIO.COPY, "UFFDIO_COPY", (at, left) => [
    address + at,
    from + at,
    left,
    0n,
    0n,
  ]);
};

/** The same with pages of zeros. */
export const zeroPages = (fd: number, address: bigint, pages: number): number =>
  place(fd, address, pages, PAGE_BYTES, UFFDIO.ZEROPAGE, "UFFDIO_ZEROPAGE", (at, left) => [address + at, left, 0n, 0n]);

/** The kernel stops at the first page that is there: such a page is skipped, but who waits for it is woken. */
const place = (
  fd: number,
  address: bigint,
  pages: number,
  hostPageBytes: number,
  request: number,
  name: string,
  fields: (at: bigint, left: bigint) => ReadonlyArray<bigint>,
): number => {
  if (!Number.isInteger(pages) || pages < 1) throw new RangeError(`${name} of ${pages} pages`);
  const end = BigInt(pages * hostPageBytes);
  const pageBytes = BigInt(hostPageBytes);
  let placed = 0;
  for (let at = 0n; at < end; ) {
    const argument = BigInt64Array.from(fields(at, end - at));
    if (libc.ioctl(fd, request, argument) === 0) return placed + Number((end - at) / pageBytes);
    const errno = lastErrno();
    // The last field says how far it came; then the call is to be repeated, which says why it went no further.
    const done = argument[argument.length - 1]!;
    if (done > 0n) {
      placed += Number(done / pageBytes);
      at += done;
    } else if (errno === "EEXIST") {
      wakePages(fd, { address: address + at, lengthBytes: hostPageBytes });
      at += pageBytes;
    } else if (errno !== "EAGAIN") throw new HostError(`ioctl(${name})`, errno);
  }
  return placed;
};

/** Faults that one read takes at most: more threads than a guest has rarely wait at once, and the rest is read next. */
const FAULTS_MAX = 64;
/** struct uffd_msg: u8 event at 0, u64 flags at 8, u64 address at 16, u32 thread at 24. */
const MESSAGE_BYTES = 32;
const UFFD_EVENT_PAGEFAULT = 0x12;

export interface Fault {
  /** Of the page that the thread waits for. */
  readonly address: bigint;
  /** As its own process numbers it; 0 when the userfaultfd was opened without UFFD_FEATURES.THREAD_ID. */
  readonly thread: number;
}

/** Reads faults of one userfaultfd. Holds the buffer that it and the kernel share, so make one and keep it. */
export interface FaultReader {
  /** Those raised since the last read; none when there are none. Does not wait. */
  readonly read: () => ReadonlyArray<Fault>;
}

export const makeFaultReader = (fd: number): FaultReader => {
  const messages = new DataView(new ArrayBuffer(FAULTS_MAX * MESSAGE_BYTES));
  const read = (): ReadonlyArray<Fault> => {
    const bytes = Number(libc.read(fd, messages, messages.byteLength));
    if (bytes === -1) {
      const errno = lastErrno();
      if (errno === "EAGAIN" || errno === "EINTR") return [];
      throw new HostError("read(userfaultfd)", errno);
    }
    const faults: Fault[] = [];
    for (let at = 0; at < bytes; at += MESSAGE_BYTES) {
      // Others are said only to who asked for them when the userfaultfd was opened.
      if (messages.getUint8(at) !== UFFD_EVENT_PAGEFAULT) continue;
      const address = messages.getBigUint64(at + 16, true);
      faults.push({ address: address - (address % BigInt(PAGE_BYTES)), thread: messages.getUint32(at + 24, true) });
    }
    return faults;
  };
  return { read };
};

const POLLIN = 1;

/**
 * Waits until there are faults to read, at most so long; true when there may be. Holds up the whole thread, so it is for a thread
 * that does nothing else.
 */
export const waitForFaults = (fd: number, timeoutMs: number): boolean => {
  // struct pollfd: i32 fd, i16 events, i16 revents.
  const descriptor = new Int32Array([fd, POLLIN]);
  const ready = libc.poll(descriptor, 1, Math.max(0, Math.ceil(timeoutMs)));
  if (ready === -1 && lastErrno() !== "EINTR") throw new HostError("poll(userfaultfd)", lastErrno());
  return ready > 0;
};

/** The same for a thread that has other work: one of the few threads that Node keeps for such calls waits instead. What goes wrong shows at the next read. */
export const faultsComing = (fd: number, timeoutMs: number): Promise<void> => {
  const descriptor = new Int32Array([fd, POLLIN]);
  return new Promise((resolve) => {
    libc.poll.async(descriptor, 1, Math.max(0, Math.ceil(timeoutMs)), () => resolve());
  });
};
