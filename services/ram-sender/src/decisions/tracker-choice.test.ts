import type { OfferedDevice } from "@godwit/protocol";
import { assert, describe, it } from "vitest";
import { chooseTracker } from "./tracker-choice.ts";

const deviceOf = (provider: OfferedDevice["provider"], logs: boolean): OfferedDevice => ({
  device: "net0",
  provider,
  p2p: true,
  "pre-copy": true,
  "dirty-logging": logs,
});

describe("the dirty tracker of a guest with devices", () => {
  it.each([
    ["no device", "builtin", [], "userfaultfd", "userfaultfd"],
    ["devices that log what they write", "builtin", [deviceOf("kernel", true)], "auto", "auto"],
    [
      "a simulated device, which says itself whether it writes",
      "builtin",
      [deviceOf("simulated", false)],
      "auto",
      "auto",
    ],
    ["a device that does not log", "builtin", [deviceOf("kernel", false)], "auto", "content"],
    ["a device to which nobody can name the memory", "qemu", [deviceOf("vfio-user", true)], "auto", "content"],
    ["a device that does not log, compared", "qemu", [deviceOf("kernel", false)], "content", "content"],
  ] as const)("with %s is one that sees all writes", (_what, driver, devices, asked, chosen) => {
    assert.strictEqual(chooseTracker(asked, { driver, devices }), chosen);
  });

  it.each(["userfaultfd", "soft-dirty"] as const)(
    "%s is refused for a device that does not log: its pages would be lost",
    (asked) => {
      const refused = chooseTracker(asked, { driver: "qemu", devices: [deviceOf("kernel", true)] });
      assert.deepInclude(refused, { code: "tracker-failed" });
      assert.include(typeof refused === "string" ? "" : refused.reason, "dirty-tracker=content");
    },
  );
});
