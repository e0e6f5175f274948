import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Settings } from "@godwit/actor";
import {
  concludeKey,
  drawKeyHalf,
  type Identity,
  isNotIdentified,
  parseIdentity,
  readSealing,
  requestKey,
  sourceSealing,
} from "@godwit/encryption";
import type { GodwitError, KeyRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
import { makeAccount } from "../../../libs/encryption/src/testing/account.ts";
import { makeAgreements } from "./agreements.ts";
import type { Source } from "./decisions/source-state.ts";
import { make } from "./decisions/source-watch.conformance.ts";

const account = makeAccount();
const loaderOf = (node: string): Identity => {
  const found = parseIdentity(account.credentials(`loader.${node}`), "loader", node, Date.now());
  if (isNotIdentified(found)) throw new Error(found.notIdentified);
  return found;
};

let settings: Settings;
beforeEach(() => {
  const runtimeDirectory = mkdtempSync("/dev/shm/godwit-agreements-");
  const creds = join(runtimeDirectory, "ram-sender.creds");
  writeFileSync(creds, account.credentials("ram-sender.a"));
  settings = { node: "a", runtimeDirectory, creds } as Settings;
});
afterEach(() => rmSync(settings.runtimeDirectory, { recursive: true, force: true }));

const claimed = (encryption = true): Source => {
  const source = make();
  source.epoch = 7;
  source.phase = { _tag: "Claimed" };
  const route = { ...source.route, source: "a", destination: "b" };
  return { ...source, node: "a", route, capabilities: { ...source.capabilities, encryption } };
};
const start = (source: Source): void => {
  source.phase = { _tag: "OpeningTracker" };
};
const attemptOf = ({ migration, epoch }: Source, destination: string) => ({
  ...{ migration, epoch, source: "a", destination },
});
const ask = (source: Source, me = loaderOf("b"), half = drawKeyHalf()) => ({
  half,
  request: requestKey(attemptOf(source, me.node), half, me),
});
const codeOf = async (work: Effect.Effect<unknown, GodwitError>): Promise<string> =>
  Effect.runPromise(Effect.match(work, { onSuccess: () => "taken", onFailure: ({ code }) => code }));
const keyIn = (source: Source): Uint8Array => {
  const sealing = readSealing(sourceSealing(settings.runtimeDirectory, source.migration, source.epoch));
  if (sealing.cipher === "none") throw new Error("nothing is sealed");
  return sealing.key;
};

describe("the agreements of a RAM sender", () => {
  it("give the workers the key that the loader of the destination has, until they are forgotten", async () => {
    const agreements = makeAgreements(settings);
    const source = claimed();
    const me = loaderOf("b");
    const { request, half } = ask(source, me);
    const answer = await Effect.runPromise(agreements.answer(source, request));
    // Its answer was lost, and the migration has begun meanwhile.
    start(source);
    assert.deepStrictEqual(await Effect.runPromise(agreements.answer(source, request)), answer);
    agreements.tellWorkers(source);
    assert.deepEqual(concludeKey(attemptOf(source, "b"), half, answer, me, Date.now()), Buffer.from(keyIn(source)));
    agreements.forget(source);
    assert.isFalse(existsSync(sourceSealing(settings.runtimeDirectory, source.migration, source.epoch)));
  });

  it("take the last loader's word while nothing has been sent, and no other afterwards", async () => {
    const agreements = makeAgreements(settings);
    const source = claimed();
    await Effect.runPromise(agreements.answer(source, ask(source).request));
    const me = loaderOf("b");
    const { request, half } = ask(source, me);
    const answer = await Effect.runPromise(agreements.answer(source, request));
    start(source);
    assert.strictEqual(await codeOf(agreements.answer(source, ask(source).request)), "wrong-state");
    agreements.tellWorkers(source);
    assert.deepEqual(concludeKey(attemptOf(source, "b"), half, answer, me, Date.now()), Buffer.from(keyIn(source)));
  });

  it("are with the node that the guest goes to: another one of the account gets none", async () => {
    const agreements = makeAgreements(settings);
    const source = claimed();
    assert.strictEqual(await codeOf(agreements.answer(source, ask(source, loaderOf("c")).request)), "not-identified");
    start(source);
    assert.throws(() => agreements.tellWorkers(source), /the loader of node b has agreed on no key/);
    assert.isFalse(existsSync(sourceSealing(settings.runtimeDirectory, source.migration, source.epoch)));
  });

  it("refuse who is not the loader they say, and what is no attempt that is sealed", async () => {
    const agreements = makeAgreements(settings);
    const source = claimed();
    const { request } = ask(source);
    const codes = async (of: Source | undefined, change: Partial<KeyRequest>) =>
      codeOf(agreements.answer(of, { ...request, ...change }));
    assert.strictEqual(await codes(source, { destination: "c" }), "not-identified");
    assert.strictEqual(await codes(source, { "public-key": drawKeyHalf().publicKey }), "not-identified");
    assert.strictEqual(await codes(source, { epoch: 8 as KeyRequest["epoch"] }), "wrong-state");
    assert.strictEqual(await codes(undefined, {}), "wrong-state");
    assert.strictEqual(await codes({ ...claimed(false), migration: source.migration }, {}), "wrong-state");
  });

  it("need an identity, but only where something is sealed; and a host may let nothing leave that is not", async () => {
    for (const creds of [undefined, join(settings.runtimeDirectory, "none.creds")]) {
      const agreements = makeAgreements({ ...settings, creds });
      assert.strictEqual(await codeOf(agreements.mayLeave(claimed())), "no-identity");
      assert.strictEqual(await codeOf(agreements.mayLeave(claimed(false))), "taken");
      const source = claimed();
      assert.strictEqual(await codeOf(agreements.answer(source, ask(source).request)), "no-identity");
    }
    writeFileSync(settings.creds!, account.credentials("ram-sender.b"));
    assert.strictEqual(await codeOf(makeAgreements(settings).mayLeave(claimed())), "no-identity");
    const strict = makeAgreements({ ...settings, requireEncryption: true });
    assert.strictEqual(await codeOf(strict.mayLeave(claimed(false))), "encryption-required");
    writeFileSync(settings.creds!, account.credentials("ram-sender.a"));
    assert.strictEqual(await codeOf(strict.mayLeave(claimed())), "taken");
    const plain = claimed(false);
    makeAgreements({ ...settings, creds: undefined }).tellWorkers(plain);
    assert.throws(() => keyIn(plain), /nothing is sealed/);
  });
});
