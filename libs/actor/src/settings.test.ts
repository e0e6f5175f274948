import { GodwitError, isMigrationId } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import { asGodwitError } from "./actor-process.ts";
import { defaultRuntimeDirectory } from "./directories.ts";
import { makeEndings } from "./endings.ts";
import { DEFAULT_NATS, directOptions, randomId, readSettings } from "./settings.ts";

const read = (env: NodeJS.ProcessEnv) => Effect.runSync(readSettings("loader", env));
const refusal = (env: NodeJS.ProcessEnv): GodwitError => Effect.runSync(Effect.flip(readSettings("loader", env)));

afterEach(() => {
  vi.unstubAllEnvs();
});

describe("an actor's settings", () => {
  it("come from the environment, each by its own name", () => {
    const env = {
      GODWIT_NATS: "nats://one:4222,nats://two:4222",
      GODWIT_CREDS: "/etc/godwit/creds",
      GODWIT_TLS_CA: "/etc/godwit/ca.pem",
      GODWIT_TLS_CERT: "/etc/godwit/cert.pem",
      GODWIT_TLS_KEY: "/etc/godwit/key.pem",
      GODWIT_DIRECT_LISTEN: "0.0.0.0:4230-4239",
      GODWIT_DIRECT_ADDRESS: "host-7.example",
      GODWIT_JS_DOMAIN: "hub",
      GODWIT_NODE: "host-7",
      GODWIT_RUNTIME_DIR: "/run/godwit",
      GODWIT_GUEST_DIR: "/dev/shm/guests",
      GODWIT_CHECKPOINT_DIR: "/backup",
      GODWIT_INCARNATION: "0123456789abcdef",
    };
    expect(read(env)).toEqual({
      nats: env.GODWIT_NATS,
      creds: env.GODWIT_CREDS,
      tls: { caFile: env.GODWIT_TLS_CA, certFile: env.GODWIT_TLS_CERT, keyFile: env.GODWIT_TLS_KEY },
      direct: { listen: env.GODWIT_DIRECT_LISTEN, address: env.GODWIT_DIRECT_ADDRESS },
      jsDomain: env.GODWIT_JS_DOMAIN,
      node: env.GODWIT_NODE,
      runtimeDirectory: env.GODWIT_RUNTIME_DIR,
      guestDirectory: env.GODWIT_GUEST_DIR,
      checkpointDirectory: env.GODWIT_CHECKPOINT_DIR,
      incarnation: env.GODWIT_INCARNATION,
    });
  });

  it("let guests leave as they are, unless encryption is required in whatever words", () => {
    for (const off of [undefined, "", "0", "false", "off", "NO"])
      expect(read(off === undefined ? {} : { GODWIT_REQUIRE_ENCRYPTION: off }).requireEncryption).toBeUndefined();
    for (const on of ["1", "true", "yes", "treu"])
      expect(read({ GODWIT_REQUIRE_ENCRYPTION: on }).requireEncryption).toBe(true);
  });

  it("say where direct connections are taken: anywhere, unless they say otherwise, and never at what is no place", () => {
    const options = (env: NodeJS.ProcessEnv) => directOptions(read(env), "loader", true);
    const anywhere = { host: "0.0.0.0", firstPort: 0, lastPort: 0 };
    expect(options({})).toEqual({ actor: "loader", listen: anywhere, announced: [], tls: true });
    expect(options({ GODWIT_DIRECT_LISTEN: "", GODWIT_DIRECT_ADDRESS: "" })).toMatchObject({ listen: anywhere });
    expect(options({ GODWIT_DIRECT_LISTEN: "off" })).toMatchObject({ listen: null });
    expect(options({ GODWIT_DIRECT_ADDRESS: "10.0.0.7:9" })).toMatchObject({
      announced: [{ host: "10.0.0.7", port: 9 }],
    });
    for (const env of [{ GODWIT_DIRECT_LISTEN: "everywhere" }, { GODWIT_DIRECT_ADDRESS: "a b" }])
      expect(refusal(env)).toMatchObject({
        code: "invalid-parameter",
        reason: expect.stringContaining(Object.keys(env)[0]!),
      });
  });

  it("have defaults that work on one machine, apart for each node and user", () => {
    const settings = read({});
    expect(settings.tls).toBeUndefined();
    expect(read({ GODWIT_TLS_CA: "", GODWIT_CREDS: "" })).toMatchObject({ creds: undefined });
    expect(read({ GODWIT_TLS_CA: "" }).tls).toBeUndefined();
    expect(settings).toMatchObject({ nats: DEFAULT_NATS, creds: undefined, node: "local" });
    expect(settings.runtimeDirectory).toMatch(/\/godwit\/local$/);
    expect(settings.guestDirectory).toMatch(new RegExp(`^/dev/shm/godwit-${process.getuid?.()}/local$`));
    expect(read({ GODWIT_NODE: "other" }).guestDirectory).not.toBe(settings.guestDirectory);
    expect(read({ GODWIT_NODE: "other" }).runtimeDirectory).not.toBe(settings.runtimeDirectory);
  });

  it("keep runtime files in the user's own directory, where the system has one", () => {
    vi.stubEnv("XDG_RUNTIME_DIR", "/run/user/4711");
    expect(defaultRuntimeDirectory("a")).toBe("/run/user/4711/godwit/a");
    vi.stubEnv("XDG_RUNTIME_DIR", undefined);
    expect(defaultRuntimeDirectory("a")).toContain(`godwit-${process.getuid?.()}`);
  });

  it("draw a new incarnation for each life", () => {
    expect(read({}).incarnation).not.toBe(read({}).incarnation);
    expect(read({}).incarnation).toMatch(/^[0-9a-f]{16}$/);
  });

  it.each(["", "a.b", "a b", "../a", "*", ">", "x".repeat(65), "a\n"])(
    "refuse %j as a node's name, and say so",
    (node) => {
      const error = refusal({ GODWIT_NODE: node });
      expect(error).toMatchObject({ code: "invalid-parameter", actor: "loader", step: "read the settings" });
      expect(error.message).toContain("GODWIT_NODE");
      expect(error.message).toContain(node);
    },
  );

  it.each(["", "xyz", "0".repeat(15), "0".repeat(17), "ABCDEF0123456789"])(
    "refuse %j as an incarnation, and say so",
    (text) => {
      expect(refusal({ GODWIT_INCARNATION: text }).message).toContain("GODWIT_INCARNATION");
    },
  );
});

describe("a random id", () => {
  it("is a migration's id, and no two are alike", () => {
    const ids = Array.from({ length: 1000 }, randomId);
    expect(new Set(ids).size).toBe(1000);
    expect(ids.every(isMigrationId)).toBe(true);
  });
});

describe("a failure of an actor's own machinery", () => {
  it("stays what it is when it is one that can be reported, and becomes one when it is not", () => {
    const wrap = asGodwitError("loader", "apply pages");
    const known = new GodwitError({ code: "no-space", actor: "x", step: "y", reason: "z" });
    expect(wrap(known)).toBe(known);
    expect(wrap(new Error("it broke"))).toMatchObject({
      code: "internal",
      actor: "loader",
      step: "apply pages",
      reason: "it broke",
    });
    // Nothing of it can be turned into text by `String`; found by the property below.
    expect(wrap(Object.create(null))).toMatchObject({ code: "internal", reason: "[Object: null prototype] {}" });
    fc.assert(
      fc.property(fc.anything(), (cause) => {
        const error = wrap(cause);
        expect(error).toBeInstanceOf(GodwitError);
        expect(typeof error.message).toBe("string");
      }),
    );
  });
});

describe("endings", () => {
  it("are kept for show, the last word on each migration, newest last, and not without end", () => {
    const endings = makeEndings();
    const info = (migration: number, downtime: number) => ({ migration: String(migration), downtime }) as never;
    for (let n = 0; n < 100; n++) endings.add(info(n, 1));
    endings.add(info(50, 2));
    const kept = endings.list() as ReadonlyArray<{ migration: string; downtime: number }>;
    expect(kept).toHaveLength(64);
    expect(kept.at(-1)).toEqual({ migration: "50", downtime: 2 });
    expect(kept[0]?.migration).toBe("36");
    expect(new Set(kept.map(({ migration }) => migration)).size).toBe(64);
  });
});
