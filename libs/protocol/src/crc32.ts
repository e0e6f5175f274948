/**
 * Checksums of bytes that stand behind each other, from the checksums of the parts (as zlib's crc32_combine does it): whoever has verified
 * the parts need not look at each byte again for the whole.
 *
 * A crc32 is a remainder modulo a polynomial; n more bytes behind it multiply it by x^(8n). Polynomials stand with their highest power in the lowest bit.
 */

const POLYNOMIAL = 0xedb88320;
/** x^0 */
const ONE = 0x8000_0000;

/** The product of two polynomials, modulo POLYNOMIAL. */
const multiply = (a: number, b: number): number => {
  let product = 0;
  let power = b;
  for (let bit = ONE; bit !== 0; bit >>>= 1) {
    if ((a & bit) !== 0) product ^= power;
    power = (power & 1) === 0 ? power >>> 1 : (power >>> 1) ^ POLYNOMIAL;
  }
  return product >>> 0;
};

/** x^(2^n); the powers repeat with 31. */
const SQUARES = ((): Uint32Array => {
  const table = new Uint32Array(32);
  table[0] = ONE >>> 1;
  for (let n = 1; n < table.length; n++) table[n] = multiply(table[n - 1]!, table[n - 1]!);
  return table;
})();

/** x^(8 * bytes) */
const shiftOf = (bytes: number): number => {
  let shift = ONE;
  // 8 bits a byte: begins at the square of number 3. Bits above 32 of a length are looked at, too.
  for (let left = bytes, square = 3; left > 0; left = Math.floor(left / 2), square++)
    if (left % 2 === 1) shift = multiply(SQUARES[square % 31]!, shift);
  return shift;
};

let known = { bytes: 0, shift: ONE };
/** Most parts are of one length. */
const shifted = (crc: number, bytes: number): number => {
  if (known.bytes !== bytes) known = { bytes, shift: shiftOf(bytes) };
  return multiply(known.shift, crc);
};

/** The crc32 of bytes of which a first part has `head`, and the rest, so many bytes, `tail`. */
export const joinCrc32 = (head: number, tail: number, tailBytes: number): number =>
  (shifted(head, tailBytes) ^ tail) >>> 0;

/** The crc32 of the rest, so many bytes, when that of the whole and of its first part are known. */
export const tailCrc32 = (whole: number, head: number, tailBytes: number): number =>
  (shifted(head, tailBytes) ^ whole) >>> 0;
