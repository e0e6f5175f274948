import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { assert, describe, it } from "vitest";
import { isRefused, makeOpener } from "./opening.ts";
import { readSealedHeader, SEALED_HEADER_BYTES, SEALING_BYTES } from "./sealed-packet.ts";
import { makeSealer, type Sealer } from "./sealer.ts";

const KEY = new Uint8Array(32).fill(7);
const attempts = Array.from({ length: 3 }, (_, n) => `${n}`.repeat(16));
const seal = (sealer: Sealer, content: string, attempt = 0, purpose: "ram" | "devices" = "ram"): Uint8Array => {
  const packet = Buffer.from(content);
  const room = new Uint8Array(packet.length + SEALING_BYTES);
  room.set(packet, SEALED_HEADER_BYTES);
  return sealer.seal(room, packet.length, { migration: attempts[attempt]!, epoch: 1, purpose }, KEY);
};
const headerOf = (sealed: Uint8Array) => {
  const header = readSealedHeader(sealed);
  if ("kind" in header) throw new Error(header.reason);
  return header;
};

/** What workers of a host do: seal for one attempt or another, first or again, and die. */
type Deed = { readonly worker: number; readonly attempt: number; readonly dies: boolean };
const deeds = fc.array(
  fc.record({ worker: fc.nat(3), attempt: fc.nat(2), dies: fc.nat(9).map((chance) => chance === 0) }),
  { minLength: 1, maxLength: 80 },
);

/** Nonces under one subkey that came a second time; a subkey is what attempt, purpose and salt make of it. */
const repeatedNonces = (done: ReadonlyArray<Deed>, makeWorker: () => Sealer): number => {
  const workers = Array.from({ length: 4 }, makeWorker);
  const seen = new Set<string>();
  let repeated = 0;
  for (const { worker, attempt, dies } of done) {
    if (dies) workers[worker] = makeWorker();
    const { migration, salt, counter } = headerOf(seal(workers[worker]!, "the same item", attempt));
    const nonce = `${migration} ${Buffer.from(salt).toString("hex")} ${counter}`;
    if (seen.has(nonce)) repeated++;
    seen.add(nonce);
  }
  return repeated;
};

describe("nonces", () => {
  it("never come twice, over lives of workers, attempts side by side, items sent again and subkeys used up", () => {
    const makeWorker = () => makeSealer({ packetsPerSubkeyMax: 5 });
    fc.assert(
      fc.property(deeds, (done) => repeatedNonces(done, makeWorker) === 0),
      { numRuns: 60 },
    );
  });

  it("would come twice if lives did not draw salts of their own: the check above can fail", () => {
    const drawSalt = () => new Uint8Array(16);
    const deed = { worker: 0, attempt: 0, dies: false };
    const restart = [deed, { ...deed, dies: true }];
    assert.isAbove(
      repeatedNonces(restart, () => makeSealer({ drawSalt })),
      0,
    );
    // Nor may a subkey go on with the salt it had.
    const many = Array.from({ length: 6 }, () => deed);
    assert.isAbove(
      repeatedNonces(many, () => makeSealer({ drawSalt, packetsPerSubkeyMax: 5 })),
      0,
    );
    assert.strictEqual(
      repeatedNonces(many, () => makeSealer()),
      0,
    );
  });
});

describe("a subkey", () => {
  it("seals no more packets than it may, and the next one opens as well", () => {
    const sealer = makeSealer({ packetsPerSubkeyMax: 3 });
    const sealed = Array.from({ length: 7 }, (_, n) => seal(sealer, `packet ${n}`));
    assert.deepStrictEqual(
      sealed.map((bytes) => headerOf(bytes).counter),
      [1, 2, 3, 1, 2, 3, 1],
    );
    assert.strictEqual(new Set(sealed.map((bytes) => Buffer.from(headerOf(bytes).salt).toString("hex"))).size, 3);
    const opener = makeOpener(
      { cipher: "aes-256-gcm", key: KEY },
      { migration: attempts[0]!, epoch: 1, purpose: "ram" },
    );
    for (const [n, bytes] of sealed.entries()) {
      const packet = opener.open(bytes);
      assert.strictEqual(isRefused(packet) ? packet.reason : Buffer.from(packet).toString(), `packet ${n}`);
    }
  });

  it("is forgotten when too many attempts are sent for, and then drawn anew", () => {
    const sealer = makeSealer();
    const to = (n: number) => ({ migration: n.toString(16).padStart(16, "0"), epoch: 1, purpose: "ram" as const });
    const room = () => new Uint8Array(100 + SEALING_BYTES);
    const first = headerOf(sealer.seal(room(), 100, to(0), KEY));
    for (let n = 1; n <= 64; n++) sealer.seal(room(), 100, to(n), KEY);
    const again = headerOf(sealer.seal(room(), 100, to(0), KEY));
    assert.strictEqual(again.counter, 1);
    assert.notDeepEqual(again.salt, first.salt);
  });
});

describe("what is sealed", () => {
  it("shows nothing of the packet, not even that two are equal", () => {
    const sealer = makeSealer();
    const secret = randomBytes(64).toString("hex");
    const [one, other] = [seal(sealer, secret), seal(sealer, secret)];
    for (const bytes of [one!, other!]) assert.isFalse(Buffer.from(bytes).includes(secret.slice(0, 8)));
    assert.notDeepEqual(one!.subarray(SEALED_HEADER_BYTES), other!.subarray(SEALED_HEADER_BYTES));
  });
});
