import { makeOpener, makeSealer, SEALED_HEADER_BYTES, SEALING_BYTES } from "@godwit/encryption";
import { letGo } from "@godwit/fabric";
import { assert, it } from "vitest";
import { openMessages } from "./opened-messages.ts";

const ATTEMPT = { migration: "0123456789abcdef", epoch: 1, purpose: "ram" } as const;
const key = new Uint8Array(32).fill(1);

it("what could be opened of a batch comes in order, in memory of its own; what is wrong with the rest is told once", async () => {
  const sealer = makeSealer();
  const arrived = ["one", "two", "one more"].map((text) => {
    const packet = Buffer.alloc(5000, text);
    const room = new Uint8Array(packet.length + SEALING_BYTES);
    room.set(packet, SEALED_HEADER_BYTES);
    return { subject: "s", data: sealer.seal(room, packet.length, ATTEMPT, key) };
  });
  const opener = makeOpener({ cipher: "aes-256-gcm", key }, ATTEMPT);
  const forged = { subject: "s", data: new Uint8Array(5000) };
  const { messages, refused, complaint } = openMessages(opener, [arrived[0]!, forged, arrived[1]!, arrived[0]!]);
  assert.deepStrictEqual(
    messages.map(({ data }) => Buffer.from(data).toString("latin1", 0, 3)),
    ["one", "two"],
  );
  assert.strictEqual(refused, 2);
  assert.match(complaint ?? "", /came again/);
  assert.deepStrictEqual(opener.refusals, { replayed: 1, forged: 1 });
  assert.deepStrictEqual(openMessages(opener, [forged, arrived[2]!]).complaint, null);
  // Free in this turn: a quarter of a MiB for each packet would otherwise wait for the garbage collector.
  for (const { data } of messages) letGo(data);
  await Promise.resolve();
  assert.deepStrictEqual(
    messages.map(({ data }) => data.length),
    [0, 0],
  );
});

it("what is not to be sealed is handed on as it came", () => {
  const arrived = [{ subject: "s", data: Uint8Array.of(1) }];
  const opener = makeOpener({ cipher: "none" }, ATTEMPT);
  assert.deepStrictEqual(openMessages(opener, arrived), { messages: arrived, refused: 0, complaint: null });
});
