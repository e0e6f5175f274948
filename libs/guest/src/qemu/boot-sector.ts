import { address16, address32, assemble, type CodeLine, far, near, word } from "./machine-code.ts";

/**
 * The guest that proves a migration: 512 bytes that boot on any PC and then, for ever, add one to three 32-bit
 * counters in every page of a range, in order of address:
 *
 *     page n:    [0]   [4]        ...      [0x800]      ...      [0xffc]
 *                 |     +---- its address      |                     |
 *                 +---- 1st counter            +---- 2nd             +---- 3rd
 *
 * However and whenever it is stopped, all counters read along the range are equal, save for one place where they drop
 * by one: there the guest is. A page that was lost, came from an older pass or was torn breaks that, and one that
 * landed elsewhere has another one's address (`boot-ledger.ts` checks both); nor are two pages ever equal, of which only one would be sent. With `burstPages` it sleeps until the next timer tick after that many pages, so it
 * writes at a known rate, leaves the host's cores to others, and goes on only where its timer and its interrupt
 * controllers moved with it. On COM1 it writes `A` at its start, then B..Z in turn, one after each `roundsPerLetter`.
 */
export interface BootProgram {
  /** First address counted in, bytes; a multiple of 4096, at least BOOT_RANGE_START_MIN. */
  readonly startAddress: number;
  /** First address behind the range, bytes; a multiple of 4096, not above the end of RAM (and below 3 GiB). */
  readonly endAddress: number;
  /** Pages written between two sleeps; 0: never sleeps. */
  readonly burstPages: number;
  /** Passes over the range between two letters; a power of two. */
  readonly roundsPerLetter: number;
}

/** Below 1 MiB lie the program itself, its stack, and the firmware. */
export const BOOT_RANGE_START_MIN = 0x10_0000;
/** PCs have their PCI hole from 3 GiB on; RAM above it lies elsewhere. */
export const BOOT_RANGE_END_MAX = 0xc000_0000;
/** Timer ticks a second: with it, `burstPages` becomes a rate of writing. */
export const BOOT_TICKS_PER_SECOND = 100;
/** Where in a page the three counters lie, bytes, in the order they are written. */
export const COUNTER_OFFSETS = [0, 0x800, 0xffc] as const;
/** Where in a page its own address lies, 32 bits, from before the first pass on. */
export const ADDRESS_OFFSET = 4;

const SECTOR_BYTES = 512;
/** Where the firmware loads a boot sector and jumps to. */
const ORIGIN = 0x7c00;
/** The interrupt table is built here, 256 gates of 8 bytes. */
const IDT_ADDRESS = 0x8000;
/** Input clock of the PC's interval timer, Hz. */
const PIT_HZ = 1_193_182;
const COM1 = 0x3f8;

/** The boot sector for a program. Throws RangeError on one that could not run as its fields say. */
export const bootSector = (program: BootProgram): Uint8Array => {
  const { startAddress, endAddress, burstPages, roundsPerLetter } = program;
  const pageAligned = startAddress % 4096 === 0 && endAddress % 4096 === 0;
  if (
    !pageAligned ||
    startAddress < BOOT_RANGE_START_MIN ||
    endAddress > BOOT_RANGE_END_MAX ||
    endAddress <= startAddress
  )
    throw new RangeError(
      `range ${startAddress.toString(16)}..${endAddress.toString(16)} is not one of whole pages from 1 MiB to 3 GiB`,
    );
  if (!Number.isInteger(burstPages) || burstPages < 0) throw new RangeError(`burstPages ${burstPages}`);
  if (!Number.isInteger(Math.log2(roundsPerLetter)))
    throw new RangeError(`roundsPerLetter ${roundsPerLetter} is no power of two`);

  const image = new Uint8Array(SECTOR_BYTES);
  const code = assemble(ORIGIN, lines(program));
  if (code.length > SECTOR_BYTES - 2) throw new RangeError(`the program is ${code.length} bytes long`);
  image.set(code);
  image.set([0x55, 0xaa], SECTOR_BYTES - 2);
  return image;
};

const outb = (port: number, value: number): CodeLine => ({
  text: `mov al, ${value}; out ${port}, al`,
  code: [0xb0, value, 0xe6, port],
});

const comOut = (register: number, value: number): ReadonlyArray<CodeLine> => [
  { text: `mov dx, COM1+${register}`, code: [0x66, 0xba, (COM1 + register) & 0xff, (COM1 + register) >> 8] },
  { text: `mov al, ${value}; out dx, al`, code: [0xb0, value, 0xee] },
];

const lines = (program: BootProgram): ReadonlyArray<CodeLine> => [
  // 16 bit, as the firmware leaves it. No interrupt may come before the new table stands.
  { text: "cli", code: [0xfa] },
  { text: "xor ax, ax", code: [0x31, 0xc0] },
  { text: "mov ds, ax", code: [0x8e, 0xd8] },
  { text: "in al, 0x92", code: [0xe4, 0x92] },
  { text: "or al, 2 (address line 20 on)", code: [0x0c, 0x02] },
  { text: "out 0x92, al", code: [0xe6, 0x92] },
  { text: "lgdt [gdt_pointer]", code: [0x0f, 0x01, 0x16, address16("gdt_pointer")] },
  { text: "mov eax, cr0", code: [0x0f, 0x20, 0xc0] },
  { text: "or al, 1 (protected mode)", code: [0x0c, 0x01] },
  { text: "mov cr0, eax", code: [0x0f, 0x22, 0xc0] },
  { text: "jmp 8:protected", code: [0xea, address16("protected"), 0x08, 0x00] },

  // 32 bit, flat.
  { label: "protected", text: "mov ax, 16", code: [0x66, 0xb8, 0x10, 0x00] },
  { text: "mov ds, ax; mov es, ax; mov ss, ax", code: [0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0] },
  { text: "mov esp, ORIGIN", code: [0xbc, word(ORIGIN)] },

  // Every vector leads to the one handler.
  { text: "mov edi, IDT", code: [0xbf, word(IDT_ADDRESS)] },
  { text: "mov ecx, 256", code: [0xb9, word(256)] },
  { label: "gate", text: "mov word [edi], tick", code: [0x66, 0xc7, 0x07, address16("tick")] },
  { text: "mov dword [edi+2], 8 (code segment)", code: [0xc7, 0x47, 0x02, word(0x08)] },
  { text: "mov byte [edi+5], 0x8e (interrupt gate)", code: [0xc6, 0x47, 0x05, 0x8e] },
  { text: "mov word [edi+6], 0", code: [0x66, 0xc7, 0x47, 0x06, 0x00, 0x00] },
  { text: "add edi, 8", code: [0x83, 0xc7, 0x08] },
  { text: "loop gate", code: [0xe2, near("gate")] },
  { text: "lidt [idt_pointer]", code: [0x0f, 0x01, 0x1d, address32("idt_pointer")] },

  // Interrupt controllers: vectors from 0x20 on, only the timer let through.
  outb(0x20, 0x11),
  outb(0x21, 0x20),
  outb(0x21, 0x04),
  outb(0x21, 0x01),
  outb(0xa1, 0xff),
  outb(0x21, 0xfe),
  // Timer channel 0: rate generator.
  outb(0x43, 0x34),
  outb(0x40, Math.round(PIT_HZ / BOOT_TICKS_PER_SECOND) & 0xff),
  outb(0x40, Math.round(PIT_HZ / BOOT_TICKS_PER_SECOND) >> 8),
  // COM1: no interrupts, 8 bits, no parity.
  ...comOut(1, 0x00),
  ...comOut(3, 0x03),

  // All counters begin at 0, whatever the firmware left in RAM.
  { text: "mov edi, start", code: [0xbf, word(program.startAddress)] },
  { text: "xor eax, eax", code: [0x31, 0xc0] },
  { label: "zero", text: "mov [edi], eax", code: [0x89, 0x07] },
  { text: "mov [edi+4], edi", code: [0x89, 0x7f, ADDRESS_OFFSET] },
  { text: "mov [edi+0x800], eax", code: [0x89, 0x87, word(COUNTER_OFFSETS[1])] },
  { text: "mov [edi+0xffc], eax", code: [0x89, 0x87, word(COUNTER_OFFSETS[2])] },
  { text: "add edi, 4096", code: [0x81, 0xc7, word(4096)] },
  { text: "cmp edi, end", code: [0x81, 0xff, word(program.endAddress)] },
  { text: "jb zero", code: [0x72, near("zero")] },

  { text: "mov bl, 'A'", code: [0xb3, 0x41] },
  { text: "call print", code: [0xe8, far("print")] },
  { text: "xor esi, esi (rounds)", code: [0x31, 0xf6] },
  { text: "mov ecx, burst", code: [0xb9, word(program.burstPages)] },
  { text: "sti", code: [0xfb] },

  { label: "round", text: "mov edi, start", code: [0xbf, word(program.startAddress)] },
  { label: "page", text: "inc dword [edi]", code: [0xff, 0x07] },
  { text: "inc dword [edi+0x800]", code: [0xff, 0x87, word(COUNTER_OFFSETS[1])] },
  { text: "inc dword [edi+0xffc]", code: [0xff, 0x87, word(COUNTER_OFFSETS[2])] },
  { text: "dec ecx (from 0 it never gets there)", code: [0x49] },
  { text: "jnz onward", code: [0x75, near("onward")] },
  { text: "hlt (until the next tick)", code: [0xf4] },
  { text: "mov ecx, burst", code: [0xb9, word(program.burstPages)] },
  { label: "onward", text: "add edi, 4096", code: [0x81, 0xc7, word(4096)] },
  { text: "cmp edi, end", code: [0x81, 0xff, word(program.endAddress)] },
  { text: "jb page", code: [0x72, near("page")] },
  { text: "inc esi", code: [0x46] },
  { text: "test esi, rounds per letter - 1", code: [0xf7, 0xc6, word(program.roundsPerLetter - 1)] },
  { text: "jnz round", code: [0x75, near("round")] },
  { text: "inc bl", code: [0xfe, 0xc3] },
  { text: "cmp bl, 'Z'", code: [0x80, 0xfb, 0x5a] },
  { text: "jbe letter", code: [0x76, near("letter")] },
  { text: "mov bl, 'B'", code: [0xb3, 0x42] },
  { label: "letter", text: "call print", code: [0xe8, far("print")] },
  { text: "jmp round", code: [0xeb, near("round")] },

  // print: waits until COM1 takes a byte, gives it the letter in bl.
  { label: "print", text: "mov dx, COM1+5", code: [0x66, 0xba, (COM1 + 5) & 0xff, (COM1 + 5) >> 8] },
  { label: "busy", text: "in al, dx", code: [0xec] },
  { text: "test al, 0x20", code: [0xa8, 0x20] },
  { text: "jz busy", code: [0x74, near("busy")] },
  { text: "mov dx, COM1", code: [0x66, 0xba, COM1 & 0xff, COM1 >> 8] },
  { text: "mov al, bl; out dx, al", code: [0x88, 0xd8, 0xee] },
  { text: "ret", code: [0xc3] },

  // The timer's handler: tells the interrupt controller that it was seen.
  { label: "tick", text: "push eax", code: [0x50] },
  outb(0x20, 0x20),
  { text: "pop eax; iret", code: [0x58, 0xcf] },

  // Null, code and data segment, both the whole 4 GiB.
  { label: "gdt", text: "null", code: [0, 0, 0, 0, 0, 0, 0, 0] },
  { text: "code", code: [0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0] },
  { text: "data", code: [0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0] },
  { label: "gdt_pointer", text: "limit, base", code: [23, 0, address32("gdt")] },
  { label: "idt_pointer", text: "limit, base", code: [0xff, 0x07, word(IDT_ADDRESS)] },
];
