/** `godwit setup-nats`: what NATS's admin does once. Actors never make a bucket: one that vanished would look as if nothing was ever in it. */
import { type BucketSetup, mismatchText, setUpBuckets, setUpObjectStore } from "@godwit/fabric";
import { BUCKETS, GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command, NO_OPERANDS, type Outcome } from "../arguments/command.ts";
import { flag, list } from "../arguments/option.ts";
import { connectionOf, fromFabric, monitorOption, natsOptions } from "../connection.ts";
import { bucketText } from "../doctor/bucket-finding.ts";
import type { Finding } from "../doctor/finding.ts";
import { greet } from "../doctor/nats-greeting.ts";
import { monitorsOf } from "../doctor/nats-monitor.ts";
import { syncFinding } from "../doctor/sync-finding.ts";
import { NATS_SERVER_CONFIGURATION } from "../nats-server-configuration.ts";
import { failureDocument, unforeseen } from "../reporting/failure.ts";

export const setupNats = command({
  operands: NO_OPERANDS,
  options: {
    objects: list(
      "BUCKET",
      "also makes this object store, for checkpoints (`godwit save ... nats-object:BUCKET/NAME`)",
    ),
    "print-config": flag("only print what each nats-server.conf must say; connects to nobody"),
    ...natsOptions,
    "nats-monitor": monitorOption,
  },
  notes: () =>
    `Makes the buckets of ownership records and of migrations, with three replicas in a cluster, or corrects them; done twice it
changes nothing. Needs credentials that may make streams. Actors open the buckets, and refuse them when they are not there or
not safe. A bucket that has vanished held the records of which node runs each guest: find that out before you make it anew.
`,
  run: ({ values }) => {
    if (values["print-config"]) {
      return Effect.succeed({
        document: { "nats-server-configuration": NATS_SERVER_CONFIGURATION },
        text: NATS_SERVER_CONFIGURATION,
      });
    }
    return Effect.gen(function* () {
      const done = yield* setUpBuckets(connectionOf(values, "godwit setup-nats", "admin"), BUCKETS).pipe(
        Effect.mapError(fromFabric),
      );
      const stores = yield* Effect.forEach(values.objects, (bucket) =>
        Effect.map(setUpObjectStore(connectionOf(values, "godwit setup-nats", "admin"), bucket), (made) => ({
          bucket,
          done: made,
        })),
      ).pipe(Effect.mapError(fromFabric));
      const greeting = yield* Effect.tryPromise({ try: () => greet(values.nats), catch: unforeseen });
      return outcomeOf(
        done,
        stores,
        syncFinding(yield* monitorsOf(values), { greeting, jsDomain: values["js-domain"] }),
      );
    });
  },
});

interface StoreSetup {
  readonly bucket: string;
  readonly done: "made" | "kept";
}

const outcomeOf = (done: ReadonlyArray<BucketSetup>, stores: ReadonlyArray<StoreSetup>, sync: Finding): Outcome => {
  const wrong = done.filter(({ reading }) => reading.mismatches.length > 0);
  const failure = wrong.length === 0 ? null : notDone(wrong);
  return {
    document: {
      buckets: done.map(({ reading, ...setup }) => ({
        ...setup,
        configuration: reading.configuration,
        mismatches: reading.mismatches,
        copies: reading.copies,
      })),
      "object-stores": stores,
      "sync-interval": sync,
      "nats-server-configuration": NATS_SERVER_CONFIGURATION,
      ...(failure === null ? {} : { error: failureDocument(failure) }),
    },
    text: [
      ...done.map(setupText),
      ...stores.map(storeText),
      `${sync.what}: ${sync.detail}`,
      "",
      NATS_SERVER_CONFIGURATION,
    ].join("\n"),
    ...(failure === null ? {} : { failure }),
  };
};

const storeText = ({ bucket, done }: StoreSetup): string => `object store ${bucket}: ${done}`;

const setupText = ({ bucket, done, corrected, reading }: BucketSetup): string =>
  [
    `bucket ${bucket}: ${done}; ${bucketText(reading)}`,
    ...corrected.map((mismatch) => `  corrected: ${mismatchText(mismatch)}`),
  ].join("\n");

/** What is left to the operator. Nothing here removes a bucket: it may hold the only word on who runs a guest. */
const notDone = (wrong: ReadonlyArray<BucketSetup>): GodwitError =>
  new GodwitError({
    code: "bucket-unsafe",
    actor: "cli",
    step: "set the buckets up",
    reason: wrong
      .map(({ bucket, refusal, reading }) => {
        const why =
          refusal === undefined ? "JetStream changes that in no stream that is there" : `JetStream: ${refusal}`;
        return `bucket ${bucket}: ${reading.mismatches.map(mismatchText).join("; ")} (${why})`;
      })
      .join("\n  ")
      .concat(
        "\n  to make it anew, let migrations end, stop all actors, keep each key's value (`nats kv get`), remove the stream\n",
        "  (`nats stream rm KV_<bucket>`), run this again, and put the values back (`nats kv put`)",
      ),
  });
