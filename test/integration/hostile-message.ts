/** What somebody may say who knows the subjects and not the rules, or the rules and not the secrets of a migration. */
import {
  type Acknowledgement,
  CONTROL_BYTES_MAX,
  decodeAcknowledgement,
  decodePacket,
  encodeAcknowledgement,
  type PagesPacket,
  payloadOffset,
  sealPages,
} from "@godwit/protocol";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const STRANGER = "feedfacecafebeef";

/** Nothing that any actor could read as a message. */
export const GARBAGE: ReadonlyArray<Uint8Array> = [
  new Uint8Array(0),
  Uint8Array.of(0),
  text("{"),
  text("null"),
  text("[]"),
  text("{}"),
  text('"Claim"'),
  text('{"_tag":"Claim"}'),
  text('{"__proto__":{"migration":"x"},"constructor":null}'),
  text(`${"[".repeat(20_000)}`),
  Uint8Array.of(0xff, 0xfe, 0xfd, 0x80),
  new Uint8Array(1024).fill(0xa5),
  // Just above what a control message may have, and as large as the server lets pass.
  text(`"${"x".repeat(CONTROL_BYTES_MAX)}"`),
  new Uint8Array(1024 ** 2).fill(0x47),
];

/** A true message cut short, and one that goes on after its end. */
export const misshapen = (message: Uint8Array): ReadonlyArray<Uint8Array> => [
  message.subarray(0, message.length >> 1),
  message.subarray(0, message.length - 1),
  Uint8Array.from([...message.subarray(0, 256), 0, 0, 0]),
];

/** A packet that is well made in every byte, and not what its receiver agreed to. */
export const forgedPackets = (truth: Uint8Array): ReadonlyArray<Uint8Array> => {
  const packet = decodePacket(truth);
  if (packet.kind !== "pages") return [];
  const one = { ...packet, runs: Uint32Array.of(0, 1), pages: 1, normalPages: 1, zeroMap: Uint8Array.of(0) };
  const lies: ReadonlyArray<Partial<PagesPacket>> = [
    { epoch: packet.epoch + 1 },
    { epoch: 0xffff_ffff, round: 0xffff_ffff },
    { migration: STRANGER },
    { block: 5 },
    { runs: Uint32Array.of(2 ** 31, 1) },
    { runs: Uint32Array.of(0xffff_ffff, 1) },
    { item: 0xffff_ffff },
    // A payload that is none.
    { compression: "zlib" },
    { compression: "zstd" },
  ];
  return lies.map((lie) => sealed({ ...one, ...lie }));
};

/** One page full of the letter G: were it ever applied, the guest would find it. */
const sealed = (packet: PagesPacket): Uint8Array => {
  const start = payloadOffset(packet.runs.length / 2, packet.pages);
  const buffer = new Uint8Array(start + 4096).fill(0x47, start);
  return sealPages(buffer, { ...packet, short: [], overflow: 0, rawBytes: 4096, payloadBytes: 4096 });
};

/** What a forged acknowledgement says of itself: more pages than any guest here has, so that it would show in the counters. */
export const FORGED_PAGES = 1_000_000;

/** Acknowledgements of everything there may be, by others than the one who may give them. */
export const forgedAcknowledgements = (truth: Uint8Array): ReadonlyArray<Uint8Array> => {
  const ack = decodeAcknowledgement(truth);
  if (ack.kind === "malformed") return [];
  const lies: ReadonlyArray<Partial<Acknowledgement>> = [
    { incarnation: STRANGER },
    { epoch: ack.epoch + 1 },
    { migration: STRANGER },
    { round: ack.round + 7 },
  ];
  const items = Uint32Array.from({ length: 512 }, (_, item) => item);
  return lies.map((lie) => encodeAcknowledgement({ ...ack, items, normalPages: FORGED_PAGES, ...lie }));
};
