import { expect, it } from "vitest";
import { UsageError } from "../arguments/usage-error.ts";
import { type HostValues, settingsOf } from "./host-settings.ts";

const values = (change: object): HostValues => ({ nats: "nats://x", creds: null, ...change }) as unknown as HostValues;

it("where direct connections are taken is what the operator says, and a usage error when that is no place", () => {
  const none = { "direct-listen": null, "direct-address": null };
  expect(settingsOf(values(none), "a").direct).toBeUndefined();
  const given = { "direct-listen": "0.0.0.0:4230-4239", "direct-address": "host-7.example" };
  expect(settingsOf(values(given), "a").direct).toEqual({ listen: "0.0.0.0:4230-4239", address: "host-7.example" });
  for (const wrong of [
    { ...none, "direct-listen": "4230" },
    { ...none, "direct-address": "host-7.example:x" },
  ])
    expect(() => settingsOf(values(wrong), "a")).toThrow(UsageError);
  expect(() => settingsOf(values({ ...none, "direct-listen": "host:1" }), "a")).toThrow(
    '--direct-listen is "host:1", not off, or an IP address and a port or a range of ports (0.0.0.0:4230-4239)',
  );
});
