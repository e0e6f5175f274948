/**
 * A two-pass assembler for programs of a few dozen instructions: bytes are written out by hand, addresses are names.
 * Enough for a boot sector, and nothing more: who reads the program sees each instruction's encoding.
 */
export type CodePart =
  | number
  /** An absolute address of a label, 16 or 32 bits, little-endian. */
  | { readonly address: string; readonly bytes: 2 | 4 }
  /** A jump's or call's distance to a label, counted from the end of the instruction. */
  | { readonly distance: string; readonly bytes: 1 | 4 }
  /** A number of 32 bits, little-endian. */
  | { readonly word: number };

/** One line: an optional label, the instruction as a human writes it, its encoding. */
export interface CodeLine {
  readonly label?: string;
  readonly text: string;
  readonly code: ReadonlyArray<CodePart>;
}

export const address16 = (label: string): CodePart => ({ address: label, bytes: 2 });
export const address32 = (label: string): CodePart => ({ address: label, bytes: 4 });
export const near = (label: string): CodePart => ({ distance: label, bytes: 1 });
export const far = (label: string): CodePart => ({ distance: label, bytes: 4 });
export const word = (value: number): CodePart => ({ word: value });

const partBytes = (part: CodePart): number => (typeof part === "number" ? 1 : "word" in part ? 4 : part.bytes);

const lineBytes = (line: CodeLine): number => line.code.reduce<number>((sum, part) => sum + partBytes(part), 0);

/** Translates lines to bytes, the first of them at address `origin`. Throws on an unknown label or a jump out of reach: both are mistakes in the program text. */
export const assemble = (origin: number, lines: ReadonlyArray<CodeLine>): Uint8Array => {
  const labels = new Map<string, number>();
  let end = origin;
  for (const line of lines) {
    if (line.label !== undefined) labels.set(line.label, end);
    end += lineBytes(line);
  }
  const find = (label: string): number => {
    const address = labels.get(label);
    if (address === undefined) throw new Error(`no label ${label}`);
    return address;
  };
  const image = new Uint8Array(end - origin);
  const view = new DataView(image.buffer);
  let at = 0;
  for (const line of lines) {
    const next = origin + at + lineBytes(line);
    for (const part of line.code) {
      if (typeof part === "number") view.setUint8(at, part);
      else if ("word" in part) view.setUint32(at, part.word >>> 0, true);
      else if ("address" in part) {
        if (part.bytes === 2) view.setUint16(at, find(part.address), true);
        else view.setUint32(at, find(part.address), true);
      } else {
        const distance = find(part.distance) - next;
        if (part.bytes === 1 && (distance < -128 || distance > 127)) throw new Error(`${line.text}: out of reach`);
        if (part.bytes === 1) view.setInt8(at, distance);
        else view.setInt32(at, distance, true);
      }
      at += partBytes(part);
    }
  }
  return image;
};
