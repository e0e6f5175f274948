import { assert, describe, it } from "vitest";
import { readCapabilities, readParameters } from "./migration-settings.ts";
import { UsageError } from "./usage-error.ts";

describe("parameters on the line", () => {
  it("may carry the units of what they measure", () => {
    assert.deepStrictEqual(readParameters(["max-bandwidth=1.5GiB/s", "downtime-limit=2s", "multifd-channels=8"]), {
      "max-bandwidth": 1.5 * 1024 ** 3,
      "downtime-limit": 2000,
      "multifd-channels": 8,
    });
  });

  it("reach the coordinator as they are when they cannot be read, since it knows the range", () => {
    const asked = ["downtime-limit=soon", "multifd-compression=zstd", "nonsense=1", "max-bandwidth=-1"];
    assert.deepStrictEqual(readParameters(asked), {
      "downtime-limit": "soon",
      "multifd-compression": "zstd",
      nonsense: "1",
      "max-bandwidth": -1,
    });
  });

  it("are refused without a value or a name", () => {
    for (const text of ["downtime-limit", "=1"]) assert.throws(() => readParameters([text]), UsageError, text);
  });
});

describe("capabilities on the line", () => {
  it("are on unless switched off", () => {
    assert.deepStrictEqual(readCapabilities(["events=off", "pause-before-switchover", "multifd=on"]), {
      events: false,
      "pause-before-switchover": true,
      multifd: true,
    });
  });

  it("are refused with another word", () => {
    assert.throws(() => readCapabilities(["events=perhaps"]), UsageError, "events=perhaps");
  });
});
