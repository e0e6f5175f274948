import { readSync } from "node:fs";
import { MalformedCheckpoint } from "./malformed.ts";

/** Bytes read ahead: a header and the bitmap of a small guest. */
const WINDOW_BYTES = 64 * 1024;

/** Reads a part of a file or of memory from front to back. What is not there is MalformedCheckpoint, with the offset of what was wanted. */
export interface Cursor {
  readonly offset: () => number;
  readonly end: number;
  readonly u8: (what: string) => number;
  /** The next byte, which stays the next. */
  readonly peek: (what: string) => number;
  readonly u16: (what: string) => number;
  readonly u32: (what: string) => number;
  /** A length or an offset. Above 2^53 nothing is one. */
  readonly u64: (what: string) => number;
  /** A copy of the next bytes. The caller bounds the length: it is allocated. */
  readonly bytes: (length: number, what: string) => Uint8Array;
  /** A name behind its length in one byte. */
  readonly name: (what: string) => string;
  /** Goes to a place between here and the end. */
  readonly skipTo: (offset: number, what: string) => void;
}

/** `read` fills a part of its first argument from an offset, and says how much it could. */
const makeCursor = (start: number, end: number, read: (into: Uint8Array, offset: number) => number): Cursor => {
  let at = start;
  let window: Uint8Array = new Uint8Array(0);
  let windowAt = start;
  const need = (length: number, what: string): void => {
    if (at + length > end) throw new MalformedCheckpoint(at, `the file ends at ${end}, within ${what}`);
  };
  const fill = (into: Uint8Array, offset: number, what: string): void => {
    for (let done = 0; done < into.length; ) {
      const count = read(into.subarray(done), offset + done);
      if (count === 0) throw new MalformedCheckpoint(offset + done, `the file ends within ${what}`);
      done += count;
    }
  };
  /** A view of `length` (at most WINDOW_BYTES) bytes, which stays right until the next call. */
  const look = (length: number, what: string): DataView => {
    need(length, what);
    if (at < windowAt || at + length > windowAt + window.length) {
      window = new Uint8Array(Math.min(WINDOW_BYTES, end - at));
      windowAt = at;
      fill(window, at, what);
    }
    const view = new DataView(window.buffer, window.byteOffset + at - windowAt, length);
    at += length;
    return view;
  };
  const bytes = (length: number, what: string): Uint8Array => {
    need(length, what);
    const copy = new Uint8Array(length);
    if (at >= windowAt && at + length <= windowAt + window.length)
      copy.set(window.subarray(at - windowAt, at - windowAt + length));
    else fill(copy, at, what);
    at += length;
    return copy;
  };
  return {
    offset: () => at,
    end,
    u8: (what) => look(1, what).getUint8(0),
    peek: (what) => {
      const value = look(1, what).getUint8(0);
      at--;
      return value;
    },
    u16: (what) => look(2, what).getUint16(0),
    u32: (what) => look(4, what).getUint32(0),
    u64: (what) => {
      const value = look(8, what).getBigUint64(0);
      if (value > Number.MAX_SAFE_INTEGER) throw new MalformedCheckpoint(at - 8, `${what} is ${value}`);
      return Number(value);
    },
    bytes,
    name: (what) => {
      const length = look(1, what).getUint8(0);
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes(length, what));
    },
    skipTo: (offset, what) => {
      if (offset < at) throw new MalformedCheckpoint(at, `${what} would lie before it, at ${offset}`);
      if (offset > end)
        throw new MalformedCheckpoint(at, `${what} would lie at ${offset}, behind the end of the file at ${end}`);
      at = offset;
    },
  };
};

export const fileCursor = (fd: number, start: number, end: number): Cursor =>
  makeCursor(start, end, (into, offset) => readSync(fd, into, 0, into.length, offset));

/** Offsets are those of `bytes`. */
export const memoryCursor = (bytes: Uint8Array): Cursor =>
  makeCursor(0, bytes.length, (into, offset) => {
    into.set(bytes.subarray(offset, offset + into.length));
    return Math.min(into.length, bytes.length - offset);
  });
