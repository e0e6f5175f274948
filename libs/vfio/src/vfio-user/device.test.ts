import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { FEATURES, migrationFeaturesData, u64Data } from "./feature.ts";
import { OURS, open } from "./testing/open.ts";

describe("opening", () => {
  it.live("finds what a libvfio-user device has, and goes on without what it has not", () =>
    Effect.gen(function* () {
      const { device } = yield* open();
      assert.deepInclude(device, { name: "nic0", provider: "vfio-user", dmaLogging: null });
      assert.deepStrictEqual(device.features, { stopCopy: true, p2p: false, preCopy: true });
      assert.isNull(yield* device.precopyInfo);
      assert.isNull(yield* device.stopCopyBytes);
      assert.strictEqual(yield* device.state, "RUNNING");
    }),
  );

  it.live("a device that cannot be migrated finds no feature", () =>
    Effect.gen(function* () {
      const { device } = yield* open({
        answer: (request, { refuse }) => {
          if (request.kind === "feature") refuse();
          return request.kind === "feature";
        },
      });
      assert.deepStrictEqual(device.features, { stopCopy: false, p2p: false, preCopy: false });
    }),
  );

  it.live("assumes no feature that is not offered", () =>
    Effect.gen(function* () {
      for (const features of [
        { stopCopy: true, p2p: true, preCopy: false },
        { stopCopy: true, p2p: false, preCopy: false },
      ]) {
        const { device } = yield* open({
          answer: (request, { reply }) => {
            if (request.kind !== "feature" || request.index !== FEATURES.migration) return false;
            reply({ ...request, data: migrationFeaturesData(features) });
            return true;
          },
        });
        assert.deepStrictEqual(device.features, features);
      }
    }),
  );

  it.live("refuses another major version", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        open({
          answer: (_, { reply }) => {
            reply({ kind: "version", major: 1, minor: 0, text: "" });
            return true;
          },
        }),
      );
      assert.deepInclude(error, { operation: "negotiate version", errno: "EPROTO" });
      assert.match(error.reason, /version 1, expected 0/);
    }),
  );

  it.live("says what may be the matter when a server does not answer", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(open({ answer: () => true }, { requestTimeout: "20 millis" }));
      assert.deepInclude(error, { operation: "negotiate version", errno: "ETIMEDOUT" });
      assert.match(error.reason, /one client at a time/);
    }),
  );
});

describe("a server of ours", () => {
  it.live("tells the sizes that vfio-user has no words for", () =>
    Effect.gen(function* () {
      const { device } = yield* open({
        capabilities: OURS,
        answer: (request, { reply }) => {
          if (request.kind === "precopy-info") reply({ kind: "precopy-info", initialBytes: 5, dirtyBytes: 2 ** 40 });
          else if (request.kind === "feature" && request.index === FEATURES.migrationDataSize)
            reply({ ...request, data: u64Data(4711) });
          else return false;
          return true;
        },
      });
      assert.deepStrictEqual(yield* device.precopyInfo, { initialBytes: 5, dirtyBytes: 2 ** 40 });
      assert.strictEqual(yield* device.stopCopyBytes, 4711);
    }),
  );

  it.live("that refuses what it announced is not taken for one that cannot tell", () =>
    Effect.gen(function* () {
      // Outside PRE_COPY, as the kernel does.
      const { device } = yield* open({ capabilities: OURS });
      assert.deepInclude(yield* Effect.flip(device.precopyInfo), { operation: "get precopy info", errno: "EINVAL" });
    }),
  );
});
