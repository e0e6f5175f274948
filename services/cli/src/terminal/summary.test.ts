import { assert, describe, it } from "vitest";
import { renderSummary, type Summary } from "./summary.ts";

const completed: Summary = {
  status: "completed",
  totalTimeMs: 4210,
  downtimeMs: 38.2,
  waterfall: [
    { part: "stop", side: "source", begin: 0, length: 19_100, beside: false },
    { part: "commit", side: "destination", begin: 19_100, length: 19_100, beside: false },
  ],
  rounds: 4,
  pagesNormal: 262_144,
  pagesZero: 12_000,
  bytes: 1.25 * 1024 ** 3,
  throughputMbps: 2550.4,
  channels: 4,
  verified: { pages: 274_144, bad: 0 },
};

describe("the summary of a migration", () => {
  it("names every figure with its unit", () => {
    assert.strictEqual(
      renderSummary(completed),
      [
        "migration completed",
        "  total time  4.21 s",
        "  downtime    38 ms",
        "  rounds      4",
        "  pages       262,144 sent, 12,000 zero",
        "  sent        1.25 GiB at 2,550 Mbit/s over 4 channels",
        "  verified    all 274,144 pages equal",
        "  PART    AT           BEGIN US      US",
        "  stop    source              0  19,100  ################",
        "  commit  destination    19,100  19,100                  ################",
        "",
      ].join("\n"),
    );
  });

  it("cannot be misread when pages differ or nothing was compared", () => {
    const faults = { pages: 1200, p50: 0.47, p99: 3, max: 11, blockedMs: 210 };
    assert.match(
      renderSummary({ ...completed, faults }),
      /faults +1,200 pages waited for \(p50 .*; all vCPUs blocked 210 ms/,
    );
    assert.include(renderSummary({ ...completed, verified: { pages: 100, bad: 3 } }), "3 of 100 pages DIFFER");
    assert.include(renderSummary({ ...completed, verified: { pages: 0, bad: 0 } }), "nothing was compared");
  });

  it("says of devices whether what was loaded is what was saved", () => {
    const devicesVerified = { devices: 2, different: [] as string[] };
    assert.include(renderSummary({ ...completed, devicesVerified }), "  devices     all bytes equal (2 devices");
    devicesVerified.different.push("vfio1");
    assert.include(renderSummary({ ...completed, devicesVerified }), "vfio1 of 2 devices DIFFER");
    assert.include(renderSummary({ ...completed, devicesVerified: { devices: 0, different: [] } }), "nothing was");
  });

  it("says when packets were sealed, and nothing of it when they were not", () => {
    assert.include(
      renderSummary({ ...completed, cipher: "aes-256-gcm" }),
      "  encrypted   every packet sealed with aes-256-gcm\n",
    );
    assert.notInclude(renderSummary(completed), "encrypted");
  });

  it("says by which lanes packets have come, and nothing of it when there was no choice", () => {
    assert.include(
      renderSummary({ ...completed, packets: { nats: 12, direct: 4096 } }),
      "  lanes       4,096 of 4,108 packets by connections of their own, 12 by NATS\n",
    );
    assert.notInclude(renderSummary(completed), "lanes");
  });

  it("gives the reason of a failure and leaves out what never happened", () => {
    const failed: Summary = {
      status: "failed",
      totalTimeMs: 100,
      rounds: 1,
      pagesNormal: 1,
      pagesZero: 0,
      bytes: 4096,
      channels: 1,
      reason: "incompatible:\n  machine: mine a, yours b",
    };
    const text = renderSummary(failed);
    assert.match(text, /^migration failed\n {2}reason {6}incompatible:\n {16}machine: mine a/);
    assert.notMatch(text, /downtime|PART|verified|Mbit|NaN|undefined/);
    assert.include(text, "over 1 channel\n");
  });
});
