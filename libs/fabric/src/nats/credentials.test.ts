import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FabricError } from "../errors.ts";
import { readCredentials } from "./credentials.ts";

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "godwit-creds-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** As tools of NATS write it; the signature is the server's business. */
const written = (file: string, claims: object): string => {
  const path = join(directory, file);
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const jwt = `${part({ alg: "ed25519-nkey" })}.${part(claims)}.c2lnbmF0dXJl`;
  writeFileSync(path, `-----BEGIN NATS USER JWT-----\n${jwt}\n------END NATS USER JWT------\n\nseed\n`);
  return path;
};
const refusalOf = (path: string, role?: string): unknown => {
  try {
    return readCredentials(path, role);
  } catch (error) {
    return error;
  }
};

describe("credentials", () => {
  it("say who the user is, and where its inboxes are", () => {
    const sub = { allow: ["godwit.presence.who", "_INBOX.loader.a.>"] };
    const path = written("loader.creds", { name: "loader.a", nats: { sub } });
    const expected = { path, content: readFileSync(path), user: "loader.a", inboxPrefix: "_INBOX.loader.a" };
    expect(readCredentials(path, "loader")).toEqual(expected);
    expect(readCredentials(directory, "loader")).toEqual(expected);
  });

  it("of a user that may have any inbox, as others make them, name none", () => {
    for (const nats of [
      {},
      { sub: {} },
      { sub: { allow: [">"] } },
      { sub: { allow: ["_INBOX.>"] } },
      { sub: { allow: "x" } },
    ])
      expect(readCredentials(written("any.creds", { name: "any", nats }), undefined)).not.toHaveProperty("inboxPrefix");
  });

  it("that are not there, or none, are refused with the path, and not tried again", () => {
    writeFileSync(join(directory, "empty.creds"), "");
    writeFileSync(
      join(directory, "broken.creds"),
      "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n",
    );
    for (const [path, role] of [
      [join(directory, "nowhere"), "loader"],
      [directory, "vfio-agent"],
      [directory, undefined],
      [join(directory, "empty.creds"), undefined],
      [join(directory, "broken.creds"), undefined],
    ] as const) {
      const error = refusalOf(path, role);
      expect(error).toBeInstanceOf(FabricError);
      expect(error).toMatchObject({ code: "nats-denied", retryable: false });
      expect((error as FabricError).operation).toContain(path);
    }
  });
});
