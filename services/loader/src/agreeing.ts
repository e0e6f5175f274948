/** How the packets of an attempt are sealed, as its loader agrees with the RAM sender of the source, and where it keeps that. */
import { asGodwitError, identityOf, type Settings } from "@godwit/actor";
import {
  concludeKey,
  destinationSealing,
  drawKeyHalf,
  isNotIdentified,
  readSealing,
  requestKey,
  type Sealing,
  UNSEALED,
} from "@godwit/encryption";
import { Fabric } from "@godwit/fabric";
import { GodwitError, json, KeyAnswer, KeyRequest, subjects } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import type { Destination } from "./decisions/index.ts";

/** An answer costs the source some milliseconds; one that does not come is asked for again, ms. */
const ANSWER_MS = 1000;
/** So often: a RAM sender that was restarted tells the coordinator, who begins another attempt. */
const AGAIN = { schedule: Schedule.spaced("250 millis"), times: 20 };

const requests = json(KeyRequest);
const answers = json(KeyAnswer);

/** Asks the source, with capability `encryption`; a session that goes on has the key of its former life. */
export const sealingOf = (
  destination: Destination,
  settings: Settings,
): Effect.Effect<Sealing, GodwitError, Fabric> => {
  const { migration, epoch, life, capabilities } = destination;
  if (capabilities["encryption"] !== true) return Effect.succeed(UNSEALED);
  if (life === 0) return Effect.map(agree(destination, settings), (key) => ({ cipher: "aes-256-gcm", key }));
  return Effect.try({
    try: () => readSealing(destinationSealing(settings.runtimeDirectory, migration, epoch)),
    catch: asGodwitError("loader", "go on with the key of a former life"),
  });
};

const agree = Effect.fnUntraced(function* (destination: Destination, settings: Settings) {
  const fabric = yield* Fabric;
  const { source } = destination;
  const attempt = { ...destination.route, epoch: destination.epoch };
  const me = yield* identityOf(settings, "loader", "destination");
  const half = drawKeyHalf();
  const request = requests.encode(requestKey(attempt, half, me));
  const data = yield* fabric
    .request(subjects.keyAgreement(source, settings.node), request, { timeoutMs: ANSWER_MS })
    .pipe(
      Effect.retry({ ...AGAIN, while: (error) => error._tag !== "GodwitError" || error.code === "wrong-state" }),
      Effect.mapError((error) => (error._tag === "GodwitError" ? error : silent(source, error.message))),
    );
  const answer = yield* answers.decodeEffect(data, "loader");
  const key = concludeKey(attempt, half, answer, me, Date.now());
  if (!isNotIdentified(key)) return key;
  return yield* new GodwitError({
    code: "not-identified",
    actor: "loader",
    side: "destination",
    step: "agree on a key",
    reason: `who answers for the RAM sender of node ${source} is not that: ${key.notIdentified}`,
  });
});

const silent = (source: string, reason: string): GodwitError =>
  new GodwitError({
    code: "source-lost",
    actor: "loader",
    side: "destination",
    step: "agree on a key",
    reason: `the RAM sender of node ${source} does not answer: ${reason}`,
  });
