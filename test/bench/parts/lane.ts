/** How much of what NATS and nats.js can carry arrives in guest memory. */
import * as Effect from "effect/Effect";
import { CLIENTS, type ClientName } from "../bare/client.ts";
import { type BareLane, openBareLane } from "../bare/lane.ts";
import { MESSAGE_BYTES, MESSAGE_PAYLOAD_BYTES, WINDOW_BYTES } from "../bare/sizes.ts";
import type { BenchOptions, Part, Result } from "../part.ts";
import { median, showSpread, spreadOf } from "../samples.ts";
import { openShuttle, RANDOM } from "../shuttle.ts";
import { openTestbed, UNLIMITED } from "../testbed.ts";

const MIB = 1024 ** 2;
const CHANNELS = [1, 2, 4] as const;
const WORKERS = 4;
/** One turn: MiB/s of guest pages, and of payload. */
type Turn = Readonly<Record<"channelPath" | ClientName, number>>;

const run = Effect.fnUntraced(function* ({ quick, progress }: BenchOptions) {
  const memoryBytes = (quick ? 128 : 512) * MIB;
  const repetitions = quick ? 1 : 5;
  const testbed = yield* openTestbed({ workers: WORKERS });
  const shuttle = yield* openShuttle(testbed, { name: "lane", memoryBytes, mix: RANDOM, workers: WORKERS });

  const measure = Effect.fnUntraced(function* (channels: number) {
    const bareOf = (client: ClientName) =>
      openBareLane({
        client,
        url: testbed.cluster.url,
        fabric: testbed.fabric,
        publishers: channels,
        messageBytes: MESSAGE_BYTES,
        messages: memoryBytes / MESSAGE_PAYLOAD_BYTES / channels,
        window: WINDOW_BYTES / MESSAGE_PAYLOAD_BYTES,
      });
    const lanes = {
      "nats.js": yield* bareOf("nats.js"),
      fabric: yield* bareOf("fabric"),
      socket: yield* bareOf("socket"),
    };
    const run = (lane: BareLane) => Effect.map(lane.run, (seconds) => memoryBytes / MIB / seconds);
    const turns: Turn[] = [];
    // The first turn warms everybody up, and is not counted.
    for (let turn = 0; turn <= repetitions; turn++) {
      const bare = {
        "nats.js": yield* run(lanes["nats.js"]),
        fabric: yield* run(lanes.fabric),
        socket: yield* run(lanes.socket),
      };
      const { info, bytes, seconds } = yield* shuttle.pass({ ...UNLIMITED, "multifd-channels": channels });
      const [rate, resent] = [bytes / MIB / seconds, info.ram?.["resent-items"] ?? 0];
      const line = `${channels} channels: ${rate.toFixed(0)} MiB/s, ${CLIENTS.map((client) => `${client} ${bare[client].toFixed(0)}`).join(", ")}`;
      progress(`${line}${resent > 0 ? `, ${resent} items sent again` : ""}${turn === 0 ? " (warming up)" : ""}`);
      if (turn > 0) turns.push({ channelPath: rate, ...bare });
    }
    const ratio = (one: keyof Turn, client: ClientName) => spreadOf(turns.map((turn) => turn[one] / turn[client]));
    const ratios = {
      "channelPath to nats.js": ratio("channelPath", "nats.js"),
      "channelPath to socket": ratio("channelPath", "socket"),
      "fabric to nats.js": ratio("fabric", "nats.js"),
      "fabric to socket": ratio("fabric", "socket"),
    };
    return { channels, turns, ratios };
  }, Effect.scoped);

  const measured = yield* Effect.forEach(CHANNELS, measure);
  const result: Result = {
    isComplete: true,
    notes: [
      `Channel path: the first pass over ${memoryBytes / MIB} MiB of random pages of an idle builtin guest, from the first work item to the last acknowledgement, both seen on NATS: multifd worker processes read guest memory, look for zero pages, make checksums and publish; a loader process checks, writes guest memory and acknowledges. Every page is checked by the guest afterwards.`,
      `Bare: processes publish as many messages of the same ${MESSAGE_BYTES} bytes with the same window of ${WINDOW_BYTES / MIB} MiB each, to one that counts and drops them; same nats-server. Once with nats.js, once with godwit's client of NATS (libs/fabric), once with a client that is little more than its socket.`,
      "Before each pass the machine's free memory is claimed once: a hypervisor that takes it back makes the first write to it slow, for whoever writes.",
      `Medians of ${repetitions} turns of all four; of the ratios also the least and the most.`,
    ],
    tables: [
      {
        titles: ["channels", "bare nats.js, MiB/s", "bare socket", "godwit's client", "to nats.js", "to the socket"],
        rows: measured.map(({ channels, turns, ratios }) => [
          String(channels),
          ...(["nats.js", "socket", "fabric"] as const).map((client) => rateOf(turns, client)),
          showSpread(ratios["fabric to nats.js"], 2),
          showSpread(ratios["fabric to socket"], 2),
        ]),
      },
      {
        titles: ["channels", "channel path, MiB/s", "to bare nats.js", "to the bare socket"],
        rows: measured.map(({ channels, turns, ratios }) => [
          String(channels),
          rateOf(turns, "channelPath"),
          showSpread(ratios["channelPath to nats.js"], 2),
          showSpread(ratios["channelPath to socket"], 2),
        ]),
      },
    ],
    figures: { memoryBytes, messageBytes: MESSAGE_BYTES, windowBytes: WINDOW_BYTES, measured },
  };
  return result;
});

const rateOf = (turns: ReadonlyArray<Turn>, what: keyof Turn): string =>
  median(turns.map((turn) => turn[what])).toFixed(0);

export const lane: Part = { name: "lane", title: "Channel path against bare clients of NATS", run };
