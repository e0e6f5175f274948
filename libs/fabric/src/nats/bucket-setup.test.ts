import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bucketOf } from "@godwit/protocol";
import { jetstreamManager, type StreamConfig } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bytes } from "../conformance/messages.ts";
import { joinNats, makeBuckets, run, startTestNats } from "../conformance/nats-world.ts";
import { configurationOf, mismatchText } from "./bucket-configuration.ts";
import { readBuckets, setUpBuckets } from "./bucket-setup.ts";

let nats: Awaited<ReturnType<typeof startTestNats>>;
beforeAll(async () => {
  nats = await startTestNats();
});
afterAll(() => nats.close());

const NANOSECONDS = 1e9;
const options = () => ({ servers: nats.server.url, name: "admin" });
const setUp = (name: string) => Effect.map(setUpBuckets(options(), [bucketOf(name)]), ([done]) => done!);
const read = (name: string) => Effect.map(readBuckets(options(), [bucketOf(name)]), ([reading]) => reading);
const open = (name: string) => Effect.flatMap(joinNats(nats.server.url, "alice"), (fabric) => fabric.bucket(name));

/** Does with JetStream what an operator's own tool can do. */
const byHand = (work: (manager: Awaited<ReturnType<typeof jetstreamManager>>) => Promise<unknown>) =>
  Effect.promise(async () => {
    const nc = await connect({ servers: nats.server.url });
    try {
      await work(await jetstreamManager(nc));
    } finally {
      await nc.close();
    }
  });
/** A stream as `nats kv add` makes it, but for `config`. */
const addByHand = (name: string, config: Partial<StreamConfig> = {}) =>
  byHand((manager) =>
    manager.streams.add({
      name: `KV_${name}`,
      subjects: [`$KV.${name}.>`],
      max_msgs_per_subject: 1,
      ...config,
    } as never),
  );

describe("setting a bucket up", () => {
  it("makes it, with everything that keeps a record", () =>
    run(
      Effect.gen(function* () {
        expect(yield* read("made")).toBeNull();
        const made = yield* setUp("made");
        expect(made).toMatchObject({ done: "made", corrected: [] });
        expect(made.reading).toMatchObject({ mismatches: [], copies: [], keys: 0, usedBytes: 0 });
        expect(made.reading.configuration).toMatchObject({
          storage: "file",
          num_replicas: 1,
          max_msgs_per_subject: 64,
          max_msg_size: 4096,
          max_bytes: 128 * 1024 ** 2,
          max_age: 0,
          discard: "new",
          allow_direct: false,
          allow_rollup_hdrs: false,
          deny_delete: true,
          deny_purge: true,
        });
        expect(yield* read("made")).toEqual(made.reading);
      }),
    ));

  it("does nothing the second time, and keeps what is in it", () =>
    run(
      Effect.gen(function* () {
        yield* setUp("twice");
        yield* (yield* open("twice")).compareAndSet("vm1", bytes("mine"), 0);
        expect(yield* setUp("twice")).toMatchObject({ done: "kept", corrected: [], reading: { keys: 1 } });
      }),
    ));

  it("lets more than is needed stand: more copies, more space", () =>
    run(
      Effect.gen(function* () {
        yield* setUp("roomy");
        yield* byHand((manager) => manager.streams.update("KV_roomy", { max_bytes: 1024 ** 3 }));
        expect(yield* setUp("roomy")).toMatchObject({ done: "kept", reading: { mismatches: [] } });
        yield* open("roomy");
      }),
    ));

  it("corrects what JetStream lets it change, and says what it was", () =>
    run(
      Effect.gen(function* () {
        yield* addByHand("loose", { allow_direct: true, max_age: 600 * NANOSECONDS, max_msg_size: 65_536 });
        const corrected = yield* setUp("loose");
        expect(corrected.done).toBe("corrected");
        expect(corrected.corrected.map(mismatchText)).toEqual(
          expect.arrayContaining([
            "allow_direct is true, not false",
            "deny_delete is false, not true",
            "max_age is 600000000000, not 0",
            "max_msg_size is 65536, not 4096",
            "max_bytes is -1, not 134217728 or more",
          ]),
        );
        expect(corrected.reading.mismatches).toEqual([]);
        yield* open("loose");
      }),
    ));

  it("says what it cannot change, and corrects the rest", () =>
    run(
      Effect.gen(function* () {
        yield* addByHand("fleeting", { storage: "memory" });
        const { done, reading } = yield* setUp("fleeting");
        expect(done).toBe("corrected");
        expect(reading.mismatches).toEqual([{ what: "storage", required: '"file"', found: '"memory"', fixed: true }]);
        expect(yield* setUp("fleeting")).toMatchObject({ done: "kept", reading: { mismatches: reading.mismatches } });
      }),
    ));

  it("says that there is too little space for it", () =>
    run(
      Effect.gen(function* () {
        const storeDir = mkdtempSync(join(tmpdir(), "godwit-nats-"));
        const config = `jetstream { store_dir: ${JSON.stringify(storeDir)}, max_file_store: 50MB }`;
        const { server } = yield* Effect.acquireRelease(
          Effect.promise(() => startTestNats({ storeDir, jetstream: false, config })),
          ({ close }) => Effect.promise(close),
        );
        const error = yield* Effect.flip(makeBuckets(server.url, "large"));
        expect(error).toMatchObject({ code: "no-space", retryable: false });
        expect(error.reason).toContain("134217728 bytes");
      }),
    ));

  it("passes on why JetStream refused, and tells what is still wrong", () =>
    run(
      Effect.gen(function* () {
        // Another stream has the subjects that this one should have.
        yield* addByHand("elsewhere");
        yield* byHand((manager) => manager.streams.add({ name: "KV_lost", subjects: ["other.>"] } as never));
        yield* byHand((manager) => manager.streams.add({ name: "thief", subjects: ["$KV.lost.>"] } as never));
        const { done, refusal, reading } = yield* setUp("lost");
        expect(done).toBe("kept");
        expect(refusal).toContain("overlap");
        expect(reading.mismatches.map(({ what }) => what)).toContain("subjects");
      }),
    ));
});

describe("opening a bucket", () => {
  it("refuses one that is not there, and does not make it", () =>
    run(
      Effect.gen(function* () {
        const error = yield* Effect.flip(open("absent"));
        expect(error).toMatchObject({ code: "bucket-missing", retryable: false });
        expect(error.reason).toContain("KV_absent");
        expect(yield* read("absent")).toBeNull();
      }),
    ));

  it("refuses one that vanished while an actor had it open, also for that actor", () =>
    run(
      Effect.gen(function* () {
        yield* setUp("gone");
        const bucket = yield* open("gone");
        yield* bucket.compareAndSet("vm1", bytes("mine"), 0);
        yield* byHand((manager) => manager.streams.delete("KV_gone"));
        expect((yield* bucket.compareAndSet("vm1", bytes("again"), 0))._tag).toBe("Unknown");
        expect((yield* Effect.flip(bucket.get("vm1"))).code).toBe("failed");
        expect((yield* Effect.flip(open("gone"))).code).toBe("bucket-missing");
      }),
    ));

  it.each<readonly [string, Partial<StreamConfig>]>([
    ["storage", { storage: "memory" }],
    ["allow_direct", { allow_direct: true }],
    ["allow_rollup_hdrs", { allow_rollup_hdrs: true, deny_purge: false }],
    ["deny_delete", { deny_delete: false }],
    ["deny_purge", { deny_purge: false }],
    ["max_age", { max_age: 600 * NANOSECONDS }],
    ["allow_msg_ttl", { allow_msg_ttl: true }],
    ["max_msgs_per_subject", { max_msgs_per_subject: 1 }],
    ["max_msgs", { max_msgs: 100 }],
    ["max_bytes", { max_bytes: 1024 ** 2 }],
    ["max_msg_size", { max_msg_size: 100 }],
    ["discard", { discard: "old" }],
    ["discard_new_per_subject", { discard_new_per_subject: true }],
    ["retention", { retention: "interest" }],
    ["no_ack", { no_ack: true }],
    ["subjects", { subjects: ["$KV.unsafe-subjects.vm1"] }],
  ] as never)("refuses one that is unsafe by %s alone, and names the value", (what, config) =>
    run(
      Effect.gen(function* () {
        const name = `unsafe-${what}`;
        yield* addByHand(name, { ...configurationOf(bucketOf(name), false), ...config });
        const error = yield* Effect.flip(open(name));
        expect(error).toMatchObject({ code: "bucket-unsafe", retryable: false });
        expect(error.reason).toContain(`${what} is `);
        yield* byHand((manager) => manager.streams.delete(`KV_${name}`));
      }),
    ),
  );

  it("refuses a copy of another stream", () =>
    run(
      Effect.gen(function* () {
        yield* addByHand("copied");
        yield* byHand((manager) => manager.streams.add({ name: "KV_copy", mirror: { name: "KV_copied" } } as never));
        expect((yield* Effect.flip(open("copy"))).reason).toContain("mirror is ");
      }),
    ));

  it("refuses a name that could reach another bucket", () =>
    run(
      Effect.gen(function* () {
        expect((yield* Effect.flip(open("no.token"))).reason).toContain("no.token");
      }),
    ));
});
