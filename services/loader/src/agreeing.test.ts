import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Settings } from "@godwit/actor";
import {
  answerKey,
  destinationSealing,
  type Identity,
  isNotIdentified,
  parseIdentity,
  type Sealing,
  UNSEALED,
  writeSealing,
} from "@godwit/encryption";
import { Fabric } from "@godwit/fabric";
import { GodwitError, json, KeyAnswer, KeyRequest, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
import { makeAccount } from "../../../libs/encryption/src/testing/account.ts";
import { sealingOf } from "./agreeing.ts";
import { type Destination, makeDestination } from "./decisions/index.ts";

const MIGRATION = "0123456789abcdef";
const EPOCH = 3;
const ATTEMPT = { migration: MIGRATION, epoch: EPOCH, source: "a", destination: "b" };
const account = makeAccount();
const senderOf = (node: string, of = account): Identity => {
  const found = parseIdentity(of.credentials(`ram-sender.${node}`), "ram-sender", node, Date.now());
  if (isNotIdentified(found)) throw new Error(found.notIdentified);
  return found;
};

let settings: Settings;
beforeEach(() => {
  const runtimeDirectory = mkdtempSync("/dev/shm/godwit-agreeing-");
  const creds = join(runtimeDirectory, "loader.creds");
  writeFileSync(creds, account.credentials("loader.b"));
  settings = { node: "b", runtimeDirectory, creds } as Settings;
});
afterEach(() => rmSync(settings.runtimeDirectory, { recursive: true, force: true }));

const destination = (encryption: boolean, life = 0): Destination =>
  makeDestination({
    migration: MIGRATION,
    guest: "vm1",
    node: "b",
    source: "a",
    incarnation: "b".repeat(16),
    epoch: EPOCH,
    authority: { term: 1, coordinator: null },
    offer: { version: 1, driver: "builtin", machine: "m", hypervisor: "h", running: true, blocks: [] },
    capabilities: { encryption },
    life,
    now: 0,
  });

/** A NATS on which `answer` is what comes to a request. */
const sealing = (of: Destination, answer: (request: KeyRequest) => Effect.Effect<KeyAnswer, GodwitError>) => {
  const request = (subject: string, data: Uint8Array) => {
    assert.strictEqual(subject, subjects.keyAgreement("a", "b"));
    return json(KeyRequest)
      .decodeEffect(data, "test")
      .pipe(Effect.flatMap(answer), Effect.map(json(KeyAnswer).encode));
  };
  return sealingOf(of, settings).pipe(Effect.provideService(Fabric, { request } as unknown as Fabric["Service"]));
};
const nobody = () => Effect.die("nobody was to be asked");
const keys: Uint8Array[] = [];
const answerAs = (me: Identity) => (request: KeyRequest) => {
  const made = answerKey(ATTEMPT, request, me, Date.now());
  if (isNotIdentified(made)) throw new Error(made.notIdentified);
  keys.push(made.key);
  return Effect.succeed(made.answer);
};

describe("how an attempt is sealed, at its destination", () => {
  it("is what the loader and the RAM sender of the source agree on", async () => {
    const found = await Effect.runPromise(sealing(destination(true), answerAs(senderOf("a"))));
    assert.deepEqual(found, { cipher: "aes-256-gcm", key: keys.at(-1)! } satisfies Sealing);
  });

  it("is nothing where it was not asked for, and nobody is asked then", async () => {
    assert.strictEqual(await Effect.runPromise(sealing(destination(false), nobody)), UNSEALED);
    assert.strictEqual(await Effect.runPromise(sealing(destination(false, 2), nobody)), UNSEALED);
  });

  it("is not what somebody else says who answers for the source, nor what the source refuses", async () => {
    for (const stranger of [senderOf("c"), { ...senderOf("a", makeAccount()), issuer: account.publicKey }]) {
      const error = await Effect.runPromise(Effect.flip(sealing(destination(true), answerAs(stranger))));
      assert.include(error, { code: "not-identified", actor: "loader", side: "destination" });
    }
    const refusal = new GodwitError({ code: "no-identity", actor: "ram-sender", step: "s", reason: "r" });
    const refused = sealing(destination(true), () => Effect.fail(refusal));
    assert.strictEqual((await Effect.runPromise(Effect.flip(refused))).code, "no-identity");
  });

  it("is what it was for a loader that goes on, which without its file does not go on", async () => {
    const error = await Effect.runPromise(Effect.flip(sealing(destination(true, 1), nobody)));
    assert.match(error.reason, /ENOENT/);
    const kept: Sealing = { cipher: "aes-256-gcm", key: Buffer.alloc(32, 4) };
    writeSealing(destinationSealing(settings.runtimeDirectory, MIGRATION, EPOCH), kept);
    assert.deepEqual(await Effect.runPromise(sealing(destination(true, 1), nobody)), kept);
  });
});
