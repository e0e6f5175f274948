import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeAccount } from "../../encryption/src/testing/account.ts";
import { identityOf } from "./identity.ts";
import { readSettings } from "./settings.ts";

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "godwit-identity-"));
  const account = makeAccount();
  for (const role of ["loader", "ram-sender"])
    writeFileSync(join(directory, `${role}.creds`), account.credentials(`${role}.a`));
  mkdirSync(join(directory, "empty"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** As an actor of this role finds out who it is. */
const identify = (creds: string | undefined, role = "loader", node = "a") => {
  const env = { GODWIT_NODE: node, ...(creds === undefined ? {} : { GODWIT_CREDS: creds }) };
  return readSettings(role, env).pipe(Effect.flatMap((settings) => identityOf(settings, role, "destination")));
};
const refusal = (...of: Parameters<typeof identify>) => Effect.runPromise(Effect.flip(identify(...of)));

describe("who an actor is", () => {
  it("says its credentials file, or the one of its role in a folder of them", async () => {
    const found = await Effect.runPromise(
      Effect.all([identify(join(directory, "loader.creds")), identify(directory), identify(directory, "ram-sender")]),
    );
    expect(found.map(({ role, node }) => `${role}.${node}`)).toEqual(["loader.a", "loader.a", "ram-sender.a"]);
    expect(new Set(found.map(({ issuer }) => issuer)).size).toBe(1);
  });

  it("is nobody's guess: without a file, or with another's, it is refused with what is missing", async () => {
    expect(await refusal(undefined)).toMatchObject({
      code: "no-identity",
      side: "destination",
      reason: expect.stringMatching(/^encryption needs an identity: the loader of node a has no credentials/),
    });
    expect((await refusal(join(directory, "empty"))).reason).toMatch(/empty\/loader\.creds cannot be read: ENOENT/);
    expect((await refusal(join(directory, "ram-sender.creds"))).reason).toMatch(/the user is "ram-sender.a", not/);
    expect((await refusal(directory, "loader", "b")).reason).toMatch(/the user is "loader.a", not "loader.b"/);
  });
});
