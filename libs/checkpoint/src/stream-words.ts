/** Numbers and names as bytes of QEMU's migration stream, big-endian. */
export const u8 = (value: number): Buffer => Buffer.from([value]);
export const u16 = (value: number): Buffer => Buffer.from([value >>> 8, value & 0xff]);
export const u32 = (value: number): Buffer => {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
export const u64 = (value: number): Buffer => {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};
export const text = (value: string): Buffer => Buffer.from(value, "utf8");
/** With its length in one byte before it. Throws RangeError when it has none. */
export const shortText = (value: string): Buffer => {
  const bytes = text(value);
  if (bytes.length > 255) throw new RangeError(`a name of ${bytes.length} bytes`);
  return Buffer.concat([u8(bytes.length), bytes]);
};
