import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { countOf, OURS, open } from "./testing/open.ts";
import type { TestServer } from "./testing/server.ts";

describe("the configuration space", () => {
  it.live("is that of just before STOP_COPY where it cannot be read in it", () =>
    Effect.gen(function* () {
      let fill = 1;
      const { device } = yield* open({
        answer: (request, { reply }, server) => {
          if (request.kind !== "region-read" || server.state === "STOP_COPY") return false;
          reply({ ...request, data: new Uint8Array(request.count).fill(fill) });
          return true;
        },
      });
      assert.deepStrictEqual(yield* device.readConfig, new Uint8Array(256).fill(1));
      fill = 2;
      yield* device.setState("STOP_COPY");
      fill = 3;
      assert.deepStrictEqual(yield* device.readConfig, new Uint8Array(256).fill(2));
      yield* device.setState("STOP");
      assert.deepStrictEqual(yield* device.readConfig, new Uint8Array(256).fill(3));
    }),
  );

  it.live("is empty where there is none, or none to be read, and that fails nothing", () =>
    Effect.gen(function* () {
      for (const refused of ["device-info", "region-info", "region-read"]) {
        const { device } = yield* open({
          answer: (request, { refuse }) => {
            if (request.kind === refused) refuse();
            return request.kind === refused;
          },
        });
        assert.strictEqual((yield* device.readConfig).length, 0);
        yield* device.setState("STOP_COPY");
      }
      const { server, device } = yield* open({
        answer: (request, { reply }) => {
          if (request.kind === "device-info") reply({ kind: "device-info", flags: 1, regions: 9, irqs: 0 });
          return request.kind === "device-info";
        },
      });
      assert.strictEqual((yield* device.readConfig).length, 0);
      assert.strictEqual(countOf(server, "region-read"), 0);
    }),
  );

  const written = (server: TestServer) =>
    server.requests.flatMap((request) =>
      request.kind === "region-write" ? [[request.offset, request.data.length] as const] : [],
    );
  const config = Uint8Array.from({ length: 256 }, (_, i) => i);
  config[0x0e] = 0;

  it.live("is written whole to a server of ours, and register by register to others", () =>
    Effect.gen(function* () {
      const ours = yield* open({ capabilities: OURS });
      yield* ours.device.writeConfig(config);
      assert.deepStrictEqual(written(ours.server), [[0, 256]]);
      const foreign = yield* open();
      yield* foreign.device.writeConfig(config);
      assert.strictEqual(written(foreign.server).length, 10);
      // The command register last: what it switches on must be in place.
      assert.deepStrictEqual(written(foreign.server).at(-1), [4, 2]);
      yield* foreign.device.writeConfig(new Uint8Array(0));
      assert.strictEqual(written(foreign.server).length, 10);
    }),
  );

  it.live("that a device does not let be written fails nothing", () =>
    Effect.gen(function* () {
      const { device } = yield* open({
        capabilities: OURS,
        answer: (request, { refuse }) => {
          if (request.kind === "region-write") refuse();
          return request.kind === "region-write";
        },
      });
      yield* device.writeConfig(config);
    }),
  );
});
