import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { FEATURE_SET } from "./message.ts";
import { countOf, open } from "./testing/open.ts";

describe("the state", () => {
  it.live("is the device's, also when a SET that echoed something else was refused", () =>
    Effect.gen(function* () {
      const { server, device } = yield* open({
        answer: (request, { refuse }, server) => {
          if (request.kind !== "feature" || request.operations !== FEATURE_SET) return false;
          // Half of the way.
          server.state = "STOP";
          refuse(5);
          return true;
        },
      });
      assert.deepInclude(yield* Effect.flip(device.setState("STOP_COPY")), {
        operation: "set STOP_COPY",
        errno: "EIO",
      });
      assert.strictEqual(yield* device.state, "STOP");
      assert.strictEqual(server.state, "STOP");
    }),
  );

  it.live("may take longer to set than other requests", () =>
    Effect.gen(function* () {
      const { device } = yield* open(
        {
          answer: (request, { reply }, server) => {
            if (request.kind !== "feature" || request.operations !== FEATURE_SET) return false;
            setTimeout(() => {
              server.state = "STOP";
              reply({ ...request });
            }, 200);
            return true;
          },
        },
        { requestTimeout: "100 millis", deviceTimeout: "5 seconds" },
      );
      yield* device.setState("STOP");
      assert.strictEqual(yield* device.state, "STOP");
    }),
  );
});

describe("a reset", () => {
  for (const from of ["STOP", "STOP_COPY", "PRE_COPY", "RESUMING", "RUNNING"] as const) {
    it.live(`leads a libvfio-user device from ${from} to RUNNING, and resets it`, () =>
      Effect.gen(function* () {
        let resets = 0;
        const { server, device } = yield* open({
          answer: (request, _, server) => {
            if (request.kind === "reset" && server.state !== "STOP" && server.state !== "STOP_COPY") resets++;
            return false;
          },
        });
        server.state = from;
        yield* device.reset;
        assert.strictEqual(server.state, "RUNNING");
        assert.isAbove(resets, 0);
      }),
    );
  }

  it.live("is all that leads a device out of ERROR", () =>
    Effect.gen(function* () {
      const { server, device } = yield* open({
        answer: (request, { reply, refuse }, server) => {
          if (request.kind === "feature" && request.operations === FEATURE_SET) {
            refuse();
            return true;
          }
          if (request.kind !== "reset") return false;
          server.state = "RUNNING";
          reply({ kind: "reset" });
          return true;
        },
      });
      server.state = "ERROR";
      yield* device.reset;
      assert.strictEqual(countOf(server, "reset"), 1);
    }),
  );

  it.live("says where a device stays that cannot be led to RUNNING", () =>
    Effect.gen(function* () {
      const { server, device } = yield* open({
        answer: (request, { refuse }) => {
          if (request.kind !== "feature" || request.operations !== FEATURE_SET) return false;
          refuse();
          return true;
        },
      });
      server.state = "RESUMING";
      const error = yield* Effect.flip(device.reset);
      assert.deepInclude(error, { operation: "reset", errno: "EINVAL" });
      assert.match(error.reason, /is RESUMING/);
    }),
  );

  it.live("that a running device does not have is a failure", () =>
    Effect.gen(function* () {
      const { device } = yield* open({
        answer: (request, { refuse }) => {
          if (request.kind === "reset") refuse(25);
          return request.kind === "reset";
        },
      });
      assert.deepInclude(yield* Effect.flip(device.reset), { operation: "reset", errno: "ENOTTY" });
    }),
  );
});
