import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import { serverCapabilities } from "./capabilities.ts";
import { decodeLoggingReport, loggingReportData, reportBitmapBytes } from "./feature.ts";
import { FEATURE_GET, FEATURE_PROBE } from "./message.ts";
import { countOf, OURS, open } from "./testing/open.ts";
import type { TestServerOptions } from "./testing/server.ts";

describe("DMA logging", () => {
  const PAGE = 4096;
  /** Logs: every page whose number is a multiple of 3 is dirty. */
  const logging = (slicePages: number): TestServerOptions => ({
    capabilities: serverCapabilities({
      transferBytesMax: 8 + 24 + slicePages / 8,
      wholeFrames: true,
      precopyInfo: true,
    }),
    answer: (request, { reply }) => {
      if (request.kind === "dma-map") reply({ kind: "dma-map" });
      else if (request.kind === "dma-unmap") reply({ ...request });
      else if (request.kind === "feature" && request.operations === FEATURE_PROBE && request.index <= 8)
        reply({ ...request });
      else if (request.kind === "feature" && (request.index === 6 || request.index === 7)) reply({ ...request });
      else if (request.kind === "feature" && request.index === 8 && request.operations === FEATURE_GET) {
        const asked = decodeLoggingReport(request.data);
        if ("kind" in asked) throw new Error(asked.reason);
        const bitmap = new Uint8Array(reportBitmapBytes(asked.length, asked.pageBytes));
        for (let at = 0; at < asked.length; at += asked.pageBytes)
          if (((asked.iova + at) / PAGE) % 3 === 0) bitmap[(at / PAGE) >>> 3]! |= 1 << ((at / PAGE) & 7);
        reply({ ...request, data: loggingReportData({ ...asked, bitmap }) });
      } else return false;
      return true;
    },
  });

  it.live("maps, starts, reports slice by slice, stops and unmaps", () =>
    Effect.gen(function* () {
      const { server, device } = yield* open(logging(16 * 1024));
      assert.isNotNull(device.dmaLogging);
      const ranges = [
        { iova: 0, length: 40_000 * PAGE },
        { iova: 2 ** 40, length: 7 * PAGE },
      ];
      yield* device.dmaLogging!.start(PAGE, ranges);
      assert.strictEqual(countOf(server, "dma-map"), 4);
      const bitmap = yield* device.dmaLogging!.report(ranges[0]!, PAGE);
      assert.strictEqual(bitmap.length, 5000);
      for (let page = 0; page < 40_000; page++)
        assert.strictEqual((bitmap[page >>> 3]! >>> (page & 7)) & 1, page % 3 === 0 ? 1 : 0);
      assert.strictEqual((yield* device.dmaLogging!.report(ranges[1]!, PAGE)).length, 1);
      yield* device.dmaLogging!.stop;
      assert.strictEqual(countOf(server, "dma-unmap"), 4);
    }),
  );

  it.live("takes no more ranges than a device does", () =>
    Effect.gen(function* () {
      const { device } = yield* open(logging(16 * 1024));
      const ranges = Array.from({ length: 257 }, (_, i) => ({ iova: i * PAGE * 2, length: PAGE }));
      assert.strictEqual((yield* Effect.flip(device.dmaLogging!.start(PAGE, ranges))).errno, "E2BIG");
    }),
  );

  it.live("is not offered where a device does not log, and never for foreign servers", () =>
    Effect.gen(function* () {
      assert.isNull((yield* open({ capabilities: OURS })).device.dmaLogging);
      const { answer } = logging(16 * 1024);
      assert.isNull((yield* open({ answer: answer! })).device.dmaLogging);
    }),
  );
});
