import * as Effect from "effect/Effect";
import { describe, expect, it } from "vitest";
import { decodeAcknowledgement } from "./acknowledgement.ts";
import { decodeFileAnswer, decodeFileItem } from "./checkpoint-item.ts";
import { json, storedJson } from "./json.ts";
import { Switching } from "./messages.ts";
import { decodePacket } from "./packet.ts";
import { PROTOCOL, parseVersion, versionRefusal, versionText } from "./version.ts";
import { decodeWorkItem } from "./work-item.ts";

const mine = { major: 4, minor: 2 };

describe("two versions of the protocol", () => {
  it.each([
    ["the same", { major: 4, minor: 2 }, true],
    ["an older minor", { major: 4, minor: 0 }, true],
    ["a newer minor", { major: 4, minor: 9 }, true],
    ["an older major", { major: 3, minor: 2 }, false],
    ["a newer major", { major: 5, minor: 0 }, false],
  ])("%s: work together, or not", (_what, theirs, together) => {
    expect(versionRefusal("x", theirs, "y", mine) === null).toBe(together);
  });

  it("that do not work together are both named, and the older one is to be upgraded", () => {
    const newer = versionRefusal("node b's loader", { major: 5, minor: 1 }, "this actor", mine);
    expect(newer).toBe("node b's loader speaks protocol version 5.1, this actor 4.2: upgrade this actor");
    const older = versionRefusal("node b's loader", { major: 3 }, "the coordinator", mine);
    expect(older).toBe("node b's loader speaks protocol version 3.x, the coordinator 4.2: upgrade node b's loader");
  });

  it("are read from their text and from nothing else", () => {
    expect(parseVersion(versionText(PROTOCOL))).toEqual(PROTOCOL);
    expect(parseVersion("255.65535")).toEqual({ major: 255, minor: 65_535 });
    for (const text of ["", "4", "4.", ".4", "0.1", "4.0.1", "v4.0", " 4.0", "4.0\n", "1e3.0", "4000.0", 4, null, {}])
      expect(parseVersion(text), JSON.stringify(text)).toBeNull();
  });
});

describe("a message", () => {
  const word = { migration: "0123456789abcdef", epoch: 7 };
  const codec = json(Switching);
  const encoded = (more: object): Uint8Array => new TextEncoder().encode(JSON.stringify({ ...word, ...more }));

  it("says which version its sender speaks", () => {
    const said = JSON.parse(new TextDecoder().decode(codec.encode(codec.decode(encoded({})) as never)));
    expect(said).toEqual({ ...word, "godwit-protocol": versionText(PROTOCOL) });
  });

  it("of a newer minor is read, and what is not known in it ignored; one of a tool, which says none, too", () => {
    const newer = `${PROTOCOL.major}.${PROTOCOL.minor + 1}`;
    expect(codec.decode(encoded({ "godwit-protocol": newer, "from-the-future": [1] }))).toEqual(word);
    expect(codec.decode(encoded({}))).toEqual(word);
  });

  it("of another major is refused for that, before anything else in it is looked at", () => {
    const theirs = `${PROTOCOL.major + 1}.3`;
    const bytes = new TextEncoder().encode(JSON.stringify({ nothing: "known", "godwit-protocol": theirs }));
    expect(codec.decode(bytes)).toMatchObject({ otherVersion: { major: PROTOCOL.major + 1, minor: 3 } });
    const error = Effect.runSync(Effect.flip(codec.decodeEffect(bytes, "loader")));
    expect(error).toMatchObject({ code: "version-mismatch", actor: "loader" });
    expect(error.reason).toContain(`speaks protocol version ${theirs}, this loader ${versionText(PROTOCOL)}: upgrade`);
  });

  it("whose version is no version is malformed", () => {
    for (const theirs of ["", "five", 5, null, { major: 5 }])
      expect(codec.decode(encoded({ "godwit-protocol": theirs }))).toEqual({
        malformed: expect.stringContaining("godwit-protocol"),
      });
  });

  it("that is kept says no version, and is read whatever it says", () => {
    const stored = storedJson(Switching);
    expect(JSON.parse(new TextDecoder().decode(stored.encode(word as never)))).toEqual(word);
    expect(stored.decode(encoded({ "godwit-protocol": "200.0" }))).toEqual(word);
  });
});

describe("a binary message of another major", () => {
  const HEADER_BYTES = 64;
  it.each([
    ["packet", "GWP1", decodePacket],
    ["work item", "GWI1", decodeWorkItem],
    ["acknowledgement", "GWA1", decodeAcknowledgement],
    ["item of a checkpoint", "GWF1", decodeFileItem],
    ["answer to it", "GWG1", decodeFileAnswer],
  ] as const)("%s: is refused in the same words", (_what, magic, decode) => {
    const bytes = new Uint8Array(HEADER_BYTES);
    new TextEncoder().encodeInto(magic, bytes);
    bytes[4] = 3;
    const refused = decode(bytes);
    expect(refused.kind).toBe("malformed");
    if (refused.kind === "malformed") expect(refused.reason).toBe(versionRefusal("its sender", { major: 3 }));
  });
});
