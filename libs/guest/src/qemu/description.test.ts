import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { QemuDriver } from "./driver.ts";
import { greeting, monitor } from "./testing/monitor.ts";

describe("QemuDriver.describe", () => {
  it.live("refuses a QEMU older than 8 before it asks it anything", () =>
    Effect.gen(function* () {
      const asked: string[] = [];
      const qmp = yield* monitor((_, { execute }) => asked.push(execute), greeting(7));
      const guest = yield* QemuDriver.open({ driver: "qemu", name: "vm1", qmp });
      const error = yield* Effect.flip(guest.describe);
      assert.strictEqual(error.code, "guest-not-movable");
      assert.include(error.reason, "QEMU 7.2.0");
      assert.deepStrictEqual(asked, []);
    }),
  );
});
