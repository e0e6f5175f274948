/** Breaks valid messages in the ways that break decoders, repeatably from a seed. */

/** mulberry32: small, fast, good enough to pick places and values. */
export const seededRandom = (seed: number): (() => number) => {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
};

const BYTES = [0, 1, 2, 3, 0x7f, 0x80, 0xfe, 0xff];
const WORDS = [0, 1, 63, 64, 65, 255, 256, 1023, 1024, 4096, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
const DOUBLES = [0, -0, -1, 0.5, 2 ** 28, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, -(2 ** 53), 1e308];
const STRANGE = [...DOUBLES, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.MIN_VALUE];

/** Each call returns a fresh message: one of `corpus` after one to four changes. */
export const makeMutator = (corpus: ReadonlyArray<Uint8Array>, random: () => number): (() => Uint8Array) => {
  const below = (limit: number): number => Math.floor(random() * limit);
  const pick = <A>(list: ReadonlyArray<A>): A => list[below(list.length)]!;
  /** Fields stand at the front, so half of all changes hit there. */
  const place = (length: number): number => below(random() < 0.5 ? Math.min(length, 80) : length);

  const change = (bytes: Uint8Array): Uint8Array => {
    if (bytes.length === 0) return Uint8Array.of(below(256));
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const at = place(bytes.length);
    switch (below(9)) {
      case 0:
        bytes[at]! ^= 1 << below(8);
        return bytes;
      case 1:
        bytes[at] = random() < 0.5 ? pick(BYTES) : below(256);
        return bytes;
      case 2:
        if (at + 2 <= bytes.length) view.setUint16(at & ~1, pick(WORDS) & 0xffff, true);
        return bytes;
      case 3:
        if ((at & ~3) + 4 <= bytes.length) view.setUint32(at & ~3, pick(WORDS), true);
        return bytes;
      case 4:
        if ((at & ~7) + 8 <= bytes.length) view.setFloat64(at & ~7, pick(STRANGE), true);
        return bytes;
      case 5:
        return bytes.slice(0, at);
      case 6: {
        const longer = new Uint8Array(bytes.length + 1 + below(64));
        longer.set(bytes);
        return longer;
      }
      case 7: {
        const other = pick(corpus);
        const from = place(other.length);
        bytes.set(other.subarray(from, from + Math.min(below(64), bytes.length - at)), at);
        return bytes;
      }
      default:
        bytes.copyWithin(at, place(bytes.length), place(bytes.length));
        return bytes;
    }
  };
  return () => {
    let bytes = pick(corpus).slice();
    for (let changes = 1 + below(4); changes > 0; changes--) bytes = change(bytes) as Uint8Array<ArrayBuffer>;
    return bytes;
  };
};
