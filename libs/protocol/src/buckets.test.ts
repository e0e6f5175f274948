import { describe, expect, it } from "vitest";
import { BUCKETS, bucketOf, MIGRATIONS_BUCKET, OWNERSHIP_BUCKET } from "./buckets.ts";
import { json } from "./json.ts";
import { CHANNELS_MAX, DEVICE_STATE_BYTES_MAX, VERIFY_BLOCKS_SHOWN } from "./limits.ts";
import { FailureSchema, MigrationInfo } from "./migration-info.ts";
import { FENCE_OP_PREFIX, OwnershipRecord } from "./ownership.ts";

/** What the headers of a compare-and-set add to its value, bytes: two names, the stream's, and a 64-bit number. */
const HEADERS_BYTES_MAX = 150;
const NAME = "n".repeat(64);
const ID = "f".repeat(16);

describe("a bucket", () => {
  it("has a name that JetStream takes, and that no other one has", () => {
    expect(BUCKETS.map(({ name }) => name)).toEqual([OWNERSHIP_BUCKET, MIGRATIONS_BUCKET]);
    for (const { name } of BUCKETS) expect(name).toMatch(/^[A-Za-z0-9_-]+$/);
    expect(OWNERSHIP_BUCKET).not.toBe(MIGRATIONS_BUCKET);
  });

  it("that is unknown is as careful as the one of the records", () => {
    expect(bucketOf("other")).toEqual({ ...bucketOf(OWNERSHIP_BUCKET), name: "other" });
    expect(bucketOf(OWNERSHIP_BUCKET).whenFull).toBe("refuse");
  });

  it("takes the largest record that an actor writes", () => {
    const record = {
      state: "switching",
      epoch: 0xffff_ffff,
      op: `${FENCE_OP_PREFIX}${[ID, ID, 0xffff_ffff, Number.MAX_SAFE_INTEGER].join("-")}`,
      migration: ID,
      node: NAME,
      open: false,
      wasRunning: false,
      destination: NAME,
      incarnation: ID,
      manifest: {
        round: 0xffff_ffff,
        items: Number.MAX_SAFE_INTEGER,
        deviceBytes: DEVICE_STATE_BYTES_MAX,
        deviceDigest: 0xffff_ffff,
      },
    } as unknown as OwnershipRecord;
    const bytes = json(OwnershipRecord).encode(record);
    expect(bytes.length + HEADERS_BYTES_MAX).toBeLessThanOrEqual(bucketOf(OWNERSHIP_BUCKET).writeBytesMax);
  });

  const channel = { worker: NAME, epoch: 0xffff_ffff, "in-flight": 64 * 1024 ** 2 };
  // Pages that are waited for are counted for one channel alone.
  const lanes = (["ram", "devices"] as const).map((purpose) => ({ purpose, lane: "direct", nats: 1e9, direct: 1e9 }));
  it.each([
    ["a hundred differences", channel, 100],
    ["packets by both lanes", { ...channel, lanes }, 0],
  ])("takes a migration of all channels that ended with %s", (_, channelInfo, differences) => {
    const info = {
      migration: ID,
      guest: NAME,
      source: NAME,
      destination: NAME,
      status: "failed",
      "total-time": 1e9,
      attempts: 1,
      channels: Array.from({ length: CHANNELS_MAX }, (_, number) => ({ channel: number, ...channelInfo })),
      verify: Array.from({ length: VERIFY_BLOCKS_SHOWN }, () => ({
        block: "b".repeat(255),
        "pages-checked": Number.MAX_SAFE_INTEGER,
        "pages-damaged": Number.MAX_SAFE_INTEGER,
      })),
      error: {
        code: "incompatible",
        actor: "loader",
        side: "destination",
        step: "compare both sides",
        reason: "x".repeat(4096),
        differences: Array.from({ length: differences }, () => ({
          what: `length of RAMBlock ${"b".repeat(255)}`,
          mine: "1".repeat(16),
          yours: "2".repeat(16),
        })),
      },
    } as unknown as MigrationInfo;
    // A coordinator keeps the failure twice, and parameters and capabilities beside it, which are short.
    const bytes = json(MigrationInfo).encode(info).length + json(FailureSchema).encode(info.error as never).length;
    expect(bytes).toBeGreaterThan(80 * 1024);
    expect(bytes + 8 * 1024 + HEADERS_BYTES_MAX).toBeLessThanOrEqual(bucketOf(MIGRATIONS_BUCKET).writeBytesMax);
  });
});
