/** A bucket as it is, in a line. */
import { type BucketCopy, type BucketReading, mismatchText } from "@godwit/fabric";
import { formatBytes } from "../terminal/format.ts";
import { type Finding, missing, works } from "./finding.ts";

const copyText = ({ server, state }: BucketCopy): string => (state === "current" ? server : `${server} ${state}`);

const off = (value: unknown, what: string): string => `${value === true ? "" : "no "}${what}`;

/** What it is like: every value that godwit asks for is among them. */
export const bucketText = ({ configuration, copies, keys, usedBytes }: BucketReading): string => {
  const value = (name: string): number => Number(configuration[name]);
  const replicas = value("num_replicas") === 1 ? "1 replica" : `${configuration["num_replicas"]} replicas`;
  return [
    copies.length === 0 ? replicas : `${replicas} (${copies.map(copyText).join(", ")})`,
    `in ${configuration["storage"]}`,
    `${configuration["max_msgs_per_subject"]} revisions`,
    off(configuration["allow_direct"], "direct gets"),
    off(configuration["deny_delete"] !== true || configuration["deny_purge"] !== true, "deletes"),
    value("max_age") === 0 ? "no expiry" : `expiry after ${value("max_age") / 1e9} s`,
    `writes up to ${formatBytes(value("max_msg_size"))}`,
    `${formatBytes(usedBytes)} of ${formatBytes(value("max_bytes"))} used by ${keys} ${keys === 1 ? "key" : "keys"}`,
  ].join(", ");
};

/** `reading` null: it is not there. */
export const bucketFinding = (bucket: string, reading: BucketReading | null): Finding => {
  const what = `bucket ${bucket}`;
  if (reading === null) return missing(what, "not there; run `godwit setup-nats`");
  if (reading.mismatches.length === 0) return works(what, bucketText(reading));
  return missing(what, `${reading.mismatches.map(mismatchText).join("; ")}; run \`godwit setup-nats\``);
};
