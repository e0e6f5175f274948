import { createCipheriv, createDecipheriv } from "node:crypto";
import fc from "fast-check";
import { assert, describe, it } from "vitest";
import { decoderSuite, positive, wireId } from "../../protocol/src/decoder.conformance.ts";
import { type Purpose, subkey } from "./key-schedule.ts";
import { CLOSED, isRefused, makeOpener, type Opener } from "./opening.ts";
import {
  openSealed,
  PACKETS_PER_SUBKEY_MAX,
  readSealedHeader,
  SEALED_HEADER_BYTES,
  SEALING_BYTES,
  type SealedHeader,
  sealInto,
} from "./sealed-packet.ts";
import { makeSealer, type Sealer } from "./sealer.ts";

const KEY = new Uint8Array(32).fill(3);
const SEALING = { cipher: "aes-256-gcm", key: KEY } as const;
const ATTEMPT = { migration: "0123456789abcdef", epoch: 4, purpose: "ram" } as const;

interface Whole extends SealedHeader {
  readonly packet: Uint8Array;
}
const keys = new Map<string, Uint8Array>();
/** Remembered: to derive one costs more than all else here. */
const keyOf = ({ salt, purpose }: SealedHeader): Uint8Array => {
  const name = `${purpose} ${Buffer.from(salt).toString("hex")}`;
  const key = keys.get(name) ?? subkey(KEY, salt, purpose);
  keys.set(name, key);
  return key;
};
const encode = (whole: Whole): Uint8Array => {
  const room = new Uint8Array(whole.packet.length + SEALING_BYTES);
  room.set(whole.packet, SEALED_HEADER_BYTES);
  return sealInto(room, whole.packet.length, whole, keyOf(whole));
};
const bytesOf = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });

decoderSuite<Whole>("a sealed packet", {
  valid: fc.record({
    purpose: fc.constantFrom<Purpose>("ram", "devices"),
    migration: wireId,
    epoch: positive,
    salt: bytesOf(16),
    counter: fc.integer({ min: 1, max: PACKETS_PER_SUBKEY_MAX }),
    packet: fc.uint8Array({ maxLength: 100 }),
  }),
  encode,
  decode: (bytes) => {
    const header = readSealedHeader(bytes);
    if ("kind" in header) return header;
    const packet = openSealed(bytes, header.counter, keyOf(header));
    if (packet === null) return { kind: "malformed", reason: "not sealed by this key" };
    return { ...header, salt: header.salt.slice(), packet: Uint8Array.from(packet) };
  },
  // As whoever has the key would: what was changed is sealed as it is now.
  repair: (bytes) => {
    const header = readSealedHeader(bytes);
    if ("kind" in header) return;
    const nonce = Buffer.alloc(12);
    nonce.writeUInt32LE(header.counter);
    const sealed = bytes.subarray(SEALED_HEADER_BYTES, bytes.length - 16);
    const packet = createDecipheriv("aes-256-gcm", keyOf(header), nonce, { authTagLength: 16 }).update(sealed);
    const cipher = createCipheriv("aes-256-gcm", keyOf(header), nonce, { authTagLength: 16 });
    cipher.setAAD(bytes.subarray(0, SEALED_HEADER_BYTES));
    cipher.update(packet);
    cipher.final();
    bytes.set(cipher.getAuthTag(), bytes.length - 16);
  },
  noticesEveryBit: true,
  fuzzPart: 1 / 40,
});

const seal = (sealer: Sealer, content: string, to: Partial<typeof ATTEMPT> | object = {}, key = KEY): Uint8Array => {
  const packet = Buffer.from(content);
  const room = new Uint8Array(packet.length + SEALING_BYTES);
  room.set(packet, SEALED_HEADER_BYTES);
  return sealer.seal(room, packet.length, { ...ATTEMPT, ...to }, key);
};
const textOf = (opened: ReturnType<Opener["open"]>): string =>
  isRefused(opened) ? opened.why : Buffer.from(opened).toString();

describe("an opener", () => {
  it("gives back what was sealed for it, in any order, from several lives of workers", () => {
    const opener = makeOpener(SEALING, ATTEMPT);
    const [one, two] = [makeSealer(), makeSealer()];
    const sealed = ["a", "b", "c", "d"].map((content, n) => seal(n % 2 === 0 ? one : two, content));
    assert.deepStrictEqual(
      sealed.toReversed().map((bytes) => textOf(opener.open(bytes))),
      ["d", "c", "b", "a"],
    );
    assert.deepStrictEqual(opener.refusals, { replayed: 0, forged: 0 });
  });

  it.each([
    ["another migration", { migration: "f".repeat(16) }, KEY],
    ["another epoch", { epoch: 5 }, KEY],
    ["the other receiver", { purpose: "devices" }, KEY],
    ["whoever has another key", {}, new Uint8Array(32)],
  ] as const)("refuses what was sealed for %s", (_, to, key) => {
    const opener = makeOpener(SEALING, ATTEMPT);
    assert.strictEqual(textOf(opener.open(seal(makeSealer(), "x", to, key))), "forged");
    assert.deepStrictEqual(opener.refusals, { replayed: 0, forged: 1 });
  });

  it("refuses what says that it is for this one and was sealed for another", () => {
    const sealed = seal(makeSealer(), "x", { epoch: 5 });
    new DataView(sealed.buffer, sealed.byteOffset).setUint32(16, ATTEMPT.epoch, true);
    const opener = makeOpener(SEALING, ATTEMPT);
    assert.strictEqual(textOf(opener.open(sealed)), "forged");
  });

  it("refuses a packet that is not sealed, and lets the log hear of it once", () => {
    const opener = makeOpener(SEALING, ATTEMPT);
    const plain = new Uint8Array(100).fill(1);
    const told = [1, 2, 3].map(() => opener.open(plain)).map((refused) => isRefused(refused) && refused.isNews);
    assert.deepStrictEqual(told, [true, false, false]);
    assert.deepStrictEqual(opener.refusals, { replayed: 0, forged: 3 });
  });

  it("lets a forger neither fill its memory nor move a window on", () => {
    const opener = makeOpener(SEALING, ATTEMPT);
    const sealer = makeSealer();
    const [first, second] = [seal(sealer, "1"), seal(sealer, "2")];
    assert.strictEqual(textOf(opener.open(first)), "1");
    // As if it were the last packet of this worker.
    const forged = second.slice();
    new DataView(forged.buffer).setUint32(20, PACKETS_PER_SUBKEY_MAX, true);
    for (let n = 0; n < 100; n++) {
      assert.strictEqual(textOf(opener.open(forged)), "forged");
      const other = second.slice();
      other[24]! ^= n + 1;
      assert.strictEqual(textOf(opener.open(other)), "forged");
    }
    assert.strictEqual(textOf(opener.open(second)), "2");
  });

  it("takes packets as they are where nothing is sealed, and none where nobody knows", () => {
    const plain = Uint8Array.of(1, 2, 3);
    assert.strictEqual(makeOpener({ cipher: "none" }, ATTEMPT).open(plain), plain);
    assert.strictEqual(textOf(CLOSED.open(plain)), "forged");
    assert.strictEqual(textOf(CLOSED.open(seal(makeSealer(), "x"))), "forged");
  });
});

/** Packets as a broker may deliver them: each one some times, in any order. */
const delivery = fc.array(fc.nat(19), { minLength: 1, maxLength: 80 });
const letInTwice = (order: ReadonlyArray<number>, openerFor: () => Opener): number => {
  const sealers = [makeSealer(), makeSealer()];
  const sealed = Array.from({ length: 20 }, (_, n) => seal(sealers[n % 2]!, String(n)));
  const seen = new Set<string>();
  let twice = 0;
  for (const n of order) {
    const text = textOf(openerFor().open(sealed[n]!));
    if (text === "replayed") continue;
    assert.strictEqual(text, String(n));
    if (seen.has(text)) twice++;
    seen.add(text);
  }
  // What was delivered was let in, too.
  assert.strictEqual(seen.size, new Set(order).size);
  return twice;
};

describe("a replay", () => {
  it("is refused, however often and in whatever order packets are delivered", () => {
    fc.assert(
      fc.property(delivery, (order) => {
        const opener = makeOpener(SEALING, ATTEMPT);
        assert.strictEqual(
          letInTwice(order, () => opener),
          0,
        );
        assert.deepStrictEqual(opener.refusals, { replayed: order.length - new Set(order).size, forged: 0 });
      }),
      { numRuns: 60 },
    );
  });

  it("would be let in by who forgets what has come: the check above can fail", () => {
    assert.strictEqual(
      letInTwice([3, 3, 3], () => makeOpener(SEALING, ATTEMPT)),
      2,
    );
  });
});
