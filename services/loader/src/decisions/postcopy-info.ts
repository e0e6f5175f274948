/** How far a postcopy is, as its destination tells it. */
import { PAGE_BYTES, type PostcopyInfo } from "@godwit/protocol";
import { summaryOf } from "./latencies.ts";
import { isHeld, type Postcopy } from "./postcopy.ts";

const stateOf = (postcopy: Postcopy): PostcopyInfo["state"] => {
  if (isHeld(postcopy)) return "paused";
  if (postcopy.isLost) return postcopy.workers.size === 0 ? "paused" : "recover";
  return postcopy.isRecovering ? "recover" : "active";
};

const reasonOf = (postcopy: Postcopy, now: number): string | null => {
  if (postcopy.isPaused) return "paused by request";
  if (!postcopy.isLost) return null;
  const seconds = Math.round((now - postcopy.lastArrivalAt) / 1000);
  const who = postcopy.workers.size === 0 ? "no multifd worker of the source is there" : "the source does not answer";
  return `${who}; the last page came ${seconds} s ago, and the guest waits for what it touches`;
};

const round = (ms: number): number => Math.round(ms * 1000) / 1000;

export const postcopyInfoOf = (postcopy: Postcopy, now: number): PostcopyInfo => {
  const { count, p50, p90, p99, max } = summaryOf(postcopy.latencies);
  const reason = reasonOf(postcopy, now);
  const since = postcopy.allBlockedSince;
  const vcpus = [...postcopy.blockedMs].sort(([a], [b]) => a - b).map(([, ms]) => round(ms));
  return {
    state: stateOf(postcopy),
    remaining: postcopy.missingPages * PAGE_BYTES,
    transferred: postcopy.transferredBytes,
    requests: count,
    latency: { p50: round(p50), p90: round(p90), p99: round(p99), max: round(max) },
    blocktime: round(postcopy.allBlockedMs + (since === null ? 0 : Math.max(0, now - since))),
    "vcpu-blocktime": vcpus,
    ...(reason === null ? {} : { reason }),
  };
};
