/** A save or a restore, followed to its end. */

import type { Fabric } from "@godwit/fabric";
import { type CheckpointInfo, GodwitError, isCheckpointOver, toError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type { Outcome } from "./arguments/command.ts";
import { failureDocument } from "./reporting/failure.ts";
import type { Report } from "./reporting/report.ts";
import { formatBytes, formatMs } from "./terminal/format.ts";

/** Between two questions how it stands, ms: what a watcher sees as "live". */
const ASK_MS = 200;
/** No answer for so long, ms: whoever watches is told so; an actor that is restarted answers within seconds. */
const LOST_MS = 30_000;

interface Verbs {
  readonly query: (
    node: string,
    request: { readonly id: CheckpointInfo["id"] },
  ) => Effect.Effect<CheckpointInfo, GodwitError, Fabric>;
  readonly cancel: Verbs["query"];
}

/** Fails when nobody answers any more, or the actor that worked for it was restarted. Interrupted, it ends what it follows. */
export const followCheckpoint = (
  begun: CheckpointInfo,
  { query, cancel }: Verbs,
  report: Report,
): Effect.Effect<CheckpointInfo, GodwitError, Fabric> =>
  Effect.gen(function* () {
    const { node, id } = begun;
    let latest = begun;
    let heardAt = Date.now();
    let last = { atMs: 0, bytes: 0 };
    while (!isCheckpointOver(latest)) {
      yield* Effect.sleep(ASK_MS);
      const answer = yield* Effect.result(query(node, { id }));
      if (answer._tag === "Failure") {
        if (answer.failure.code === "no-such-checkpoint" || Date.now() - heardAt > LOST_MS)
          return yield* answer.failure;
        continue;
      }
      latest = answer.success;
      heardAt = Date.now();
      const now = { atMs: latest["total-time"], bytes: latest.transferred };
      report.show({
        status: latest.status,
        round: latest["dirty-sync-count"],
        totalBytes: latest.total,
        remainingBytes: latest.remaining,
        deviceBytesLeft: null,
        bytesPerSecond: now.atMs > last.atMs ? ((now.bytes - last.bytes) * 1000) / (now.atMs - last.atMs) : null,
        dirtyBytesPerSecond: null,
        predictedDowntimeMs: null,
      });
      last = now;
    }
    return latest;
  }).pipe(Effect.onInterrupt(() => Effect.ignore(cancel(begun.node, { id: begun.id }))));

export const checkpointDocument = (info: CheckpointInfo): Readonly<Record<string, unknown>> => ({
  ...info,
  ...(info.error === undefined ? {} : { error: failureDocument(toError(info.error)) }),
});

const PAGE_BYTES = 4096;

const summaryOf = (info: CheckpointInfo): string => {
  const seconds = info["total-time"] / 1000;
  const rate = seconds > 0 ? `, ${formatBytes(info.transferred / seconds)}/s` : "";
  const lines = [
    `${info.what === "save" ? "saved" : "restored"} guest ${info.guest} at node ${info.node} in ${formatMs(info["total-time"])}${info.what === "save" ? `, ${info["dirty-sync-count"]} rounds` : ""}`,
    `  ${info.what === "save" ? "written" : "read"} ${formatBytes(info.transferred)}${rate}`,
  ];
  if (info.normal !== undefined && info.zero !== undefined)
    lines.push(`  pages ${info.normal} stored (${formatBytes(info.normal * PAGE_BYTES)}), ${info.zero} zero`);
  if (info["file-bytes"] !== undefined) lines.push(`  file ${formatBytes(info["file-bytes"])} with holes`);
  if (info.downtime !== undefined && info.what === "save") lines.push(`  downtime ${formatMs(info.downtime)}`);
  if (info["first-instruction"] !== undefined) lines.push(`  first instruction ${formatMs(info["first-instruction"])}`);
  const latency = info["postcopy-latency"];
  if (latency !== undefined)
    lines.push(
      `  pages waited for ${info["postcopy-requests"]}: p50 ${formatMs(latency.p50)}, p99 ${formatMs(latency.p99)}, max ${formatMs(latency.max)}`,
    );
  if (info.checksums !== undefined) lines.push(`  checksums ${info.checksums}`);
  return `${lines.join("\n")}\n`;
};

export const outcomeOf = (info: CheckpointInfo): Outcome => {
  if (info.status === "completed") return { document: checkpointDocument(info), text: summaryOf(info) };
  const failure =
    info.error === undefined
      ? new GodwitError({
          code: "internal",
          actor: "cli",
          step: info.what,
          reason: `the ${info.what} is ${info.status}, and no reason was given`,
        })
      : toError(info.error);
  return { document: checkpointDocument(info), text: "", failure };
};
